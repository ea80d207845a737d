/* Xen's own headers, and a machine without a hypervisor. */
#ifndef XEN_H
#define XEN_H
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define __XEN_INTERFACE_VERSION__ __XEN_LATEST_INTERFACE_VERSION__
#define xen_mb()  __asm__ volatile("lock; addl $0,-4(%%rsp)" ::: "memory", "cc")
#define xen_rmb() __asm__ volatile("" ::: "memory")
#define xen_wmb() __asm__ volatile("" ::: "memory")
#include <xen/xen.h>
#include <xen/grant_table.h>
#include <xen/io/netif.h>

#define RING 256
#define REFILL 8 /* posting fewer pages is not worth it */
#define PEER 7
#define NOINLINE __attribute__((noinline))
#define COLD __attribute__((noinline, cold))
#endif
