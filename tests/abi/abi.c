/*
 * What Xen's public headers say, one fact a line, for the Rust tests to compare with:
 *
 *     NAME number      sizes, offsets, constants
 *     NAME 0a1b2c...   the bytes of a message, an entry, a whole ring page
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define __XEN_INTERFACE_VERSION__ __XEN_LATEST_INTERFACE_VERSION__
#include <xen/xen.h>
#include <xen/event_channel.h>
#include <xen/grant_table.h>
#include <xen/memory.h>
#include <xen/sched.h>
#include <xen/vcpu.h>
#include <xen/version.h>
#include <xen/elfnote.h>
#include <xen/hvm/hvm_op.h>
#include <xen/hvm/params.h>
#include <xen/arch-x86/hvm/start_info.h>

/* ring.h leaves the barriers to us; here nobody runs at the same time. */
#define xen_mb() __sync_synchronize()
#define xen_rmb() __sync_synchronize()
#define xen_wmb() __sync_synchronize()
#include <xen/io/console.h>
#include <xen/io/netif.h>
#include <xen/io/xenbus.h>
#include <xen/io/xs_wire.h>

#define PAGE 4096

#define NUMBER(n) printf("%s %lld\n", #n, (long long)(n))
#define SIZE(t) printf("sizeof(%s) %zu\n", #t, sizeof(struct t))
#define FIELD(t, f) printf("%s.%s %zu\n", #t, #f, offsetof(struct t, f))
#define BYTES(name, value) bytes(name, &(value), sizeof(value))

static void bytes(const char *name, const void *first, size_t count)
{
    const unsigned char *at = first;

    printf("%s ", name);
    while (count--)
        printf("%02x", *at++);
    printf("\n");
}

static const struct netif_tx_request tx_request = {
    .gref = 0x11223344, .offset = 0x5566, .flags = 0x7788, .id = 0x99aa, .size = 0xbbcc
};
static const struct netif_tx_response tx_response = { .id = 0x1234, .status = NETIF_RSP_DROPPED };
static const struct netif_rx_request rx_request = { .id = 0x4321, .gref = 0xaabbccdd };
static const struct netif_rx_response rx_response = {
    .id = 0x0102, .offset = 0x0304, .flags = 0x0506, .status = -7
};
static const struct netif_extra_info extra_gso = {
    .type = XEN_NETIF_EXTRA_TYPE_GSO,
    .u.gso = { .size = 1448, .type = XEN_NETIF_GSO_TYPE_TCPV6 }
};
static const struct netif_extra_info extra_mcast = {
    .type = XEN_NETIF_EXTRA_TYPE_MCAST_ADD, .flags = XEN_NETIF_EXTRA_FLAG_MORE,
    .u.mcast.addr = { 1, 2, 3, 4, 5, 6 }
};

static const struct netif_extra_info extra_hash = {
    .type = XEN_NETIF_EXTRA_TYPE_HASH,
    .u.hash = {
        .type = _XEN_NETIF_CTRL_HASH_TYPE_IPV6_TCP,
        .algorithm = XEN_NETIF_CTRL_HASH_ALGORITHM_TOEPLITZ,
        .value = { 0x44, 0x33, 0x22, 0x11 } /* LSB first */
    }
};
#ifdef XEN_NETIF_EXTRA_TYPE_XDP /* Linux has it; Xen's header need not */
static const struct netif_extra_info extra_xdp = {
    .type = XEN_NETIF_EXTRA_TYPE_XDP, .u.xdp = { .headroom = 0x1234 }
};
#endif

static void netif(void)
{
    BYTES("tx_request", tx_request);
    BYTES("tx_response", tx_response);
    BYTES("rx_request", rx_request);
    BYTES("rx_response", rx_response);
    BYTES("extra_gso", extra_gso);
    BYTES("extra_mcast", extra_mcast);
    BYTES("extra_hash", extra_hash);
#ifdef XEN_NETIF_EXTRA_TYPE_XDP
    BYTES("extra_xdp", extra_xdp);
    NUMBER(XEN_NETIF_EXTRA_TYPE_XDP);
#endif

    NUMBER(NETTXF_csum_blank);
    NUMBER(NETTXF_data_validated);
    NUMBER(NETTXF_more_data);
    NUMBER(NETTXF_extra_info);
    NUMBER(NETRXF_data_validated);
    NUMBER(NETRXF_csum_blank);
    NUMBER(NETRXF_more_data);
    NUMBER(NETRXF_extra_info);
    NUMBER(NETRXF_gso_prefix);
    NUMBER(NETIF_RSP_DROPPED);
    NUMBER(NETIF_RSP_ERROR);
    NUMBER(NETIF_RSP_OKAY);
    NUMBER(NETIF_RSP_NULL);
    NUMBER(XEN_NETIF_NR_SLOTS_MIN);
    NUMBER(XEN_NETIF_MAX_TX_SIZE);
    NUMBER(XEN_NETIF_EXTRA_FLAG_MORE);
    NUMBER(XEN_NETIF_EXTRA_TYPE_GSO);
    NUMBER(XEN_NETIF_EXTRA_TYPE_MCAST_ADD);
    NUMBER(XEN_NETIF_EXTRA_TYPE_MCAST_DEL);
    NUMBER(XEN_NETIF_EXTRA_TYPE_HASH);
    printf("tx_ring_size %d\n", (int)__CONST_RING_SIZE(netif_tx, PAGE));
    printf("rx_ring_size %d\n", (int)__CONST_RING_SIZE(netif_rx, PAGE));
}

static const struct xen_netif_ctrl_request ctrl_request = {
    .id = 0x1122, .type = XEN_NETIF_CTRL_TYPE_SET_HASH_MAPPING, .data = { 0x33445566, 7, 9 }
};
static const struct xen_netif_ctrl_response ctrl_response = {
    .id = 0x1122, .type = XEN_NETIF_CTRL_TYPE_SET_HASH_MAPPING,
    .status = XEN_NETIF_CTRL_STATUS_BUFFER_OVERFLOW, .data = 0x778899aa
};
static const struct xen_netif_gref gref = {
    .ref = 0x11223344, .flags = XEN_NETIF_CTRLF_GREF_readonly, .status = 0x5566
};

static void control(void)
{
    BYTES("ctrl_request", ctrl_request);
    BYTES("ctrl_response", ctrl_response);
    BYTES("gref", gref);
    printf("grefs_per_page %zu\n", PAGE / sizeof(gref));
    printf("ctrl_ring_size %d\n", (int)__CONST_RING_SIZE(xen_netif_ctrl, PAGE));

    NUMBER(XEN_NETIF_CTRL_TYPE_INVALID);
    NUMBER(XEN_NETIF_CTRL_TYPE_GET_HASH_FLAGS);
    NUMBER(XEN_NETIF_CTRL_TYPE_SET_HASH_FLAGS);
    NUMBER(XEN_NETIF_CTRL_TYPE_SET_HASH_KEY);
    NUMBER(XEN_NETIF_CTRL_TYPE_GET_HASH_MAPPING_SIZE);
    NUMBER(XEN_NETIF_CTRL_TYPE_SET_HASH_MAPPING_SIZE);
    NUMBER(XEN_NETIF_CTRL_TYPE_SET_HASH_MAPPING);
    NUMBER(XEN_NETIF_CTRL_TYPE_SET_HASH_ALGORITHM);
    NUMBER(XEN_NETIF_CTRL_TYPE_GET_GREF_MAPPING_SIZE);
    NUMBER(XEN_NETIF_CTRL_TYPE_ADD_GREF_MAPPING);
    NUMBER(XEN_NETIF_CTRL_TYPE_DEL_GREF_MAPPING);
    NUMBER(XEN_NETIF_CTRL_STATUS_SUCCESS);
    NUMBER(XEN_NETIF_CTRL_STATUS_NOT_SUPPORTED);
    NUMBER(XEN_NETIF_CTRL_STATUS_INVALID_PARAMETER);
    NUMBER(XEN_NETIF_CTRL_STATUS_BUFFER_OVERFLOW);
    NUMBER(XEN_NETIF_CTRL_HASH_TYPE_IPV4);
    NUMBER(XEN_NETIF_CTRL_HASH_TYPE_IPV4_TCP);
    NUMBER(XEN_NETIF_CTRL_HASH_TYPE_IPV6);
    NUMBER(XEN_NETIF_CTRL_HASH_TYPE_IPV6_TCP);
    NUMBER(XEN_NETIF_CTRL_HASH_ALGORITHM_NONE);
    NUMBER(XEN_NETIF_CTRL_HASH_ALGORITHM_TOEPLITZ);
    NUMBER(XEN_NETIF_CTRLF_GREF_readonly);
}

static void xenbus(void)
{
    NUMBER(XenbusStateUnknown);
    NUMBER(XenbusStateInitialising);
    NUMBER(XenbusStateInitWait);
    NUMBER(XenbusStateInitialised);
    NUMBER(XenbusStateConnected);
    NUMBER(XenbusStateClosing);
    NUMBER(XenbusStateClosed);
    NUMBER(XenbusStateReconfiguring);
    NUMBER(XenbusStateReconfigured);
}

/*
 * Two requests, an extra between them; then a response to each slot, and both ends ask for the
 * next event. The Rust test does the same, and the pages have to be the same, byte for byte.
 */
static void tx_session(void)
{
    static union { struct netif_tx_sring ring; char page[PAGE]; } shared;
    struct netif_tx_front_ring front;
    struct netif_tx_back_ring back;
    int notify, more;

    XEN_FRONT_RING_INIT(&front, &shared.ring, PAGE);
    BACK_RING_INIT(&back, &shared.ring, PAGE);
    BYTES("tx_page_empty", shared);

    *RING_GET_REQUEST(&front, front.req_prod_pvt++) = tx_request;
    memcpy(RING_GET_REQUEST(&front, front.req_prod_pvt++), &extra_gso, sizeof(extra_gso));
    *RING_GET_REQUEST(&front, front.req_prod_pvt++) = tx_request;
    RING_PUSH_REQUESTS_AND_CHECK_NOTIFY(&front, notify);
    printf("tx_notify_back %d\n", notify);
    BYTES("tx_page_requests", shared);

    back.req_cons += 3;
    RING_FINAL_CHECK_FOR_REQUESTS(&back, more);
    printf("tx_more_requests %d\n", more);
    for (int n = 0; n < 3; n++)
        *RING_GET_RESPONSE(&back, back.rsp_prod_pvt++) = tx_response;
    RING_PUSH_RESPONSES_AND_CHECK_NOTIFY(&back, notify);
    printf("tx_notify_front %d\n", notify);
    front.rsp_cons += 3;
    RING_FINAL_CHECK_FOR_RESPONSES(&front, more);
    printf("tx_more_responses %d\n", more);
    BYTES("tx_page_responses", shared);
}

/* A ring filled to its last slot, and one response. */
static void rx_session(void)
{
    static union { struct netif_rx_sring ring; char page[PAGE]; } shared;
    struct netif_rx_front_ring front;
    struct netif_rx_back_ring back;
    int notify;

    XEN_FRONT_RING_INIT(&front, &shared.ring, PAGE);
    BACK_RING_INIT(&back, &shared.ring, PAGE);
    while (!RING_FULL(&front)) {
        struct netif_rx_request request = rx_request;

        request.id = front.req_prod_pvt;
        *RING_GET_REQUEST(&front, front.req_prod_pvt++) = request;
    }
    RING_PUSH_REQUESTS_AND_CHECK_NOTIFY(&front, notify);
    printf("rx_notify_back %d\n", notify);
    *RING_GET_RESPONSE(&back, back.rsp_prod_pvt++) = rx_response;
    RING_PUSH_RESPONSES_AND_CHECK_NOTIFY(&back, notify);
    printf("rx_notify_front %d\n", notify);
    BYTES("rx_page", shared);
}

/* A ring filled to its last slot, and one response. */
static void ctrl_session(void)
{
    static union { struct xen_netif_ctrl_sring ring; char page[PAGE]; } shared;
    struct xen_netif_ctrl_front_ring front;
    struct xen_netif_ctrl_back_ring back;
    int notify;

    XEN_FRONT_RING_INIT(&front, &shared.ring, PAGE);
    BACK_RING_INIT(&back, &shared.ring, PAGE);
    while (!RING_FULL(&front)) {
        struct xen_netif_ctrl_request request = ctrl_request;

        request.id = front.req_prod_pvt;
        *RING_GET_REQUEST(&front, front.req_prod_pvt++) = request;
    }
    RING_PUSH_REQUESTS_AND_CHECK_NOTIFY(&front, notify);
    printf("ctrl_notify_back %d\n", notify);
    *RING_GET_RESPONSE(&back, back.rsp_prod_pvt++) = ctrl_response;
    RING_PUSH_RESPONSES_AND_CHECK_NOTIFY(&back, notify);
    printf("ctrl_notify_front %d\n", notify);
    BYTES("ctrl_page", shared);
}

static void grants(void)
{
    const struct grant_entry_v1 writable = {
        .flags = GTF_permit_access, .domid = 7, .frame = 0x1234
    };
    const struct grant_entry_v1 read_only = {
        .flags = GTF_permit_access | GTF_readonly, .domid = 7, .frame = 0x1234
    };

    BYTES("grant_writable", writable);
    BYTES("grant_read_only", read_only);
    NUMBER(GTF_reading);
    NUMBER(GTF_writing);
    NUMBER(GNTTAB_NR_RESERVED_ENTRIES);
    NUMBER(GNTST_okay);
    NUMBER(GNTST_general_error);
    NUMBER(GNTST_bad_domain);
    NUMBER(GNTST_bad_gntref);
    NUMBER(GNTST_bad_handle);
    NUMBER(GNTST_no_device_space);
    NUMBER(GNTST_permission_denied);
    NUMBER(GNTST_bad_page);
    NUMBER(GNTST_bad_copy_arg);
    NUMBER(GNTST_address_too_big);
    NUMBER(GNTST_eagain);
    NUMBER(GNTST_no_space);
}

#include "guest.h"
#include "store.h"

int main(void)
{
    netif();
    control();
    xenbus();
    tx_session();
    rx_session();
    ctrl_session();
    grants();
    guest();
    store();
    return 0;
}
