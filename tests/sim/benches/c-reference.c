/* What a frontend's packet path costs in C: Xen's own ring.h, netif.h and grant_table.h, with the
 * checks that a frontend makes which does not trust its backend (as Linux does since 5.16: indices
 * and ids checked, responses copied out once, grants ended by one compare-exchange). No skb, no
 * lock, no allocation: pages wait on a stack.
 *
 *     c-reference PATH BATCH
 *
 * runs one path, `tx` (submit + reap) or `rx` (poll + refill), 100,000 packets in batches. Run
 * under callgrind, collecting inside fe_* only. */
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
#define PEER 7
#define PACKETS 100000
#define NOINLINE __attribute__((noinline))

enum { FREE, PUBLISHED };

struct page { uint32_t gfn; };

struct stats { uint64_t packets, bytes, slots, completed, grants, revokes; };

static struct frontend {
    netif_tx_front_ring_t tx;
    netif_rx_front_ring_t rx;
    struct { struct page *page; uint16_t next; uint8_t state; } tx_slot[RING];
    uint16_t tx_free;
    struct page *rx_slot[RING];
    struct page *stack[2 * RING];
    unsigned depth;
    struct stats stats;
    int broken;
} fe;

static netif_tx_back_ring_t be_tx;
static netif_rx_back_ring_t be_rx;
static grant_entry_v1_t table[2 * RING + 16];
static struct page pages[2 * RING];
static uint64_t events;

static inline void grant(unsigned ref, uint32_t gfn, uint16_t flags)
{
    table[ref].frame = gfn;
    table[ref].domid = PEER;
    xen_wmb();
    *(volatile uint16_t *)&table[ref].flags = flags;
}

/* Ends access in one exchange that fails while the peer uses the page. */
static inline int revoke(unsigned ref)
{
    uint16_t now = *(volatile uint16_t *)&table[ref].flags;
    if (now & (GTF_reading | GTF_writing))
        return 0;
    return __sync_bool_compare_and_swap(&table[ref].flags, now, 0);
}

/* Sends n packets of 64 bytes, a page each. */
NOINLINE int fe_submit(int n)
{
    int notify, sent = 0;
    while (sent < n) {
        if (RING_FULL(&fe.tx) || fe.tx_free == RING || fe.depth == 0)
            break;
        struct page *page = fe.stack[--fe.depth];
        uint16_t id = fe.tx_free;
        fe.tx_free = fe.tx_slot[id].next;
        fe.tx_slot[id].page = page;
        fe.tx_slot[id].state = PUBLISHED;
        unsigned ref = 8 + id;
        grant(ref, page->gfn, GTF_permit_access | GTF_readonly);
        netif_tx_request_t *request = RING_GET_REQUEST(&fe.tx, fe.tx.req_prod_pvt);
        request->gref = ref;
        request->offset = 0;
        request->flags = 0;
        request->id = id;
        request->size = 64;
        fe.tx.req_prod_pvt++;
        fe.stats.packets++;
        fe.stats.bytes += 64;
        fe.stats.slots++;
        fe.stats.grants++;
        sent++;
    }
    RING_PUSH_REQUESTS_AND_CHECK_NOTIFY(&fe.tx, notify);
    events += notify;
    return sent;
}

NOINLINE int fe_reap(void)
{
    int done = 0;
    if (fe.broken)
        return 0;
    RING_IDX prod = *(volatile RING_IDX *)&fe.tx.sring->rsp_prod;
    if (RING_RESPONSE_PROD_OVERFLOW(&fe.tx, prod))
        goto broken;
    xen_rmb();
    for (; fe.tx.rsp_cons != prod; fe.tx.rsp_cons++) {
        netif_tx_response_t response;
        RING_COPY_RESPONSE(&fe.tx, fe.tx.rsp_cons, &response);
        if (response.status == NETIF_RSP_NULL)
            continue;
        if (response.id >= RING || fe.tx_slot[response.id].state != PUBLISHED)
            goto broken;
        if (!revoke(8 + response.id))
            goto broken;
        fe.tx_slot[response.id].state = FREE;
        fe.tx_slot[response.id].next = fe.tx_free;
        fe.tx_free = response.id;
        fe.stack[fe.depth++] = fe.tx_slot[response.id].page;
        fe.stats.completed++;
        fe.stats.revokes++;
        done++;
    }
    return done;
broken:
    fe.broken = 1;
    return 0;
}

/* Posts pages until the receive ring has n of them. */
NOINLINE void fe_refill(int n)
{
    int notify;
    RING_IDX prod = fe.rx.req_prod_pvt;
    while ((int)(prod - fe.rx.rsp_cons) < n && fe.depth > 0) {
        struct page *page = fe.stack[--fe.depth];
        unsigned id = prod & (RING - 1), ref = 8 + RING + id;
        fe.rx_slot[id] = page;
        grant(ref, page->gfn, GTF_permit_access);
        netif_rx_request_t *request = RING_GET_REQUEST(&fe.rx, prod);
        request->id = id;
        request->pad = 0;
        request->gref = ref;
        prod++;
        fe.stats.grants++;
    }
    fe.rx.req_prod_pvt = prod;
    RING_PUSH_REQUESTS_AND_CHECK_NOTIFY(&fe.rx, notify);
    events += notify;
}

/* The layer above: it looks at the packet and drops it. */
static inline void deliver(struct page *page, unsigned offset, unsigned length)
{
    __asm__ volatile("" ::"r"(page), "r"(offset), "r"(length) : "memory");
    fe.stack[fe.depth++] = page;
}

NOINLINE int fe_poll(int budget)
{
    int packets = 0;
    if (fe.broken)
        return 0;
    RING_IDX prod = *(volatile RING_IDX *)&fe.rx.sring->rsp_prod;
    if (RING_RESPONSE_PROD_OVERFLOW(&fe.rx, prod))
        goto broken;
    xen_rmb();
    while (fe.rx.rsp_cons != prod && packets < budget) {
        int bytes = 0, bad = 0, more;
        packets++;
        do {
            netif_rx_response_t response;
            RING_COPY_RESPONSE(&fe.rx, fe.rx.rsp_cons, &response);
            unsigned id = fe.rx.rsp_cons & (RING - 1);
            fe.rx.rsp_cons++;
            if (response.id != id || !fe.rx_slot[id] || !revoke(8 + RING + id))
                goto broken;
            struct page *page = fe.rx_slot[id];
            fe.rx_slot[id] = NULL;
            fe.stats.revokes++;
            fe.stats.slots++;
            if (response.status < 0 || response.offset + response.status > 4096 ||
                (response.flags & NETRXF_extra_info)) {
                fe.stack[fe.depth++] = page;
                bad = 1;
            } else {
                bytes += response.status;
                deliver(page, response.offset, response.status);
            }
            more = response.flags & NETRXF_more_data;
        } while (more && fe.rx.rsp_cons != prod);
        if (!bad && !more && bytes >= 14) {
            fe.stats.packets++;
            fe.stats.bytes += bytes;
        }
    }
    return packets;
broken:
    fe.broken = 1;
    return 0;
}

/* The backend is not measured: it answers everything. */
NOINLINE static void backend_tx(void)
{
    int notify;
    RING_IDX prod = *(volatile RING_IDX *)&be_tx.sring->req_prod;
    while (be_tx.req_cons != prod) {
        netif_tx_request_t request;
        RING_COPY_REQUEST(&be_tx, be_tx.req_cons, &request);
        be_tx.req_cons++;
        netif_tx_response_t *response = RING_GET_RESPONSE(&be_tx, be_tx.rsp_prod_pvt);
        response->id = request.id;
        response->status = 0;
        be_tx.rsp_prod_pvt++;
    }
    RING_PUSH_RESPONSES_AND_CHECK_NOTIFY(&be_tx, notify);
    events += notify;
}

NOINLINE static void backend_rx(int n)
{
    int notify;
    while (n-- > 0) {
        netif_rx_request_t request;
        RING_COPY_REQUEST(&be_rx, be_rx.req_cons, &request);
        be_rx.req_cons++;
        netif_rx_response_t *response = RING_GET_RESPONSE(&be_rx, be_rx.rsp_prod_pvt);
        response->id = request.id;
        response->offset = 0;
        response->flags = 0;
        response->status = 64;
        be_rx.rsp_prod_pvt++;
    }
    RING_PUSH_RESPONSES_AND_CHECK_NOTIFY(&be_rx, notify);
    events += notify;
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    int batch = atoi(argv[2]), receive = strcmp(argv[1], "rx") == 0;
    netif_tx_sring_t *tx = aligned_alloc(4096, 4096);
    netif_rx_sring_t *rx = aligned_alloc(4096, 4096);
    SHARED_RING_INIT(tx);
    SHARED_RING_INIT(rx);
    FRONT_RING_INIT(&fe.tx, tx, 4096);
    FRONT_RING_INIT(&fe.rx, rx, 4096);
    BACK_RING_INIT(&be_tx, tx, 4096);
    BACK_RING_INIT(&be_rx, rx, 4096);
    for (int i = 0; i < RING; i++)
        fe.tx_slot[i].next = i + 1;
    for (int i = 0; i < 2 * RING; i++) {
        pages[i].gfn = 1000 + i;
        fe.stack[fe.depth++] = &pages[i];
    }
    long done = 0;
    if (receive)
        fe_refill(RING);
    while (done < PACKETS) {
        if (receive) {
            backend_rx(batch);
            done += fe_poll(batch);
            fe_refill(RING);
        } else {
            fe_submit(batch);
            backend_tx();
            done += fe_reap();
        }
        if (fe.broken)
            return 1;
    }
    printf("%ld packets, %lu grants, %lu revokes, %lu events\n", done, fe.stats.grants, fe.stats.revokes, events);
    return 0;
}
