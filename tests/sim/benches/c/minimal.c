/* The least that a frontend in C can do on Xen's ring.h which does not trust its backend: indices
 * and ids are checked, responses copied out once, grants ended by one compare-exchange.
 *
 * It is a floor, not a driver: each id and each slot has one page for ever, so no page is handed
 * in or out; nothing is counted; whose bytes a page holds nobody knows; whoever calls has to know
 * that the ring has room; and whatever goes wrong is the end. `equal.c` does all that. */
#include "harness.h"

static netif_tx_front_ring_t tx;
static netif_rx_front_ring_t rx;
static uint16_t next[RING], first_free;
static uint8_t busy[RING];

static void fe_init(netif_tx_sring_t *tx_page, netif_rx_sring_t *rx_page)
{
    FRONT_RING_INIT(&tx, tx_page, 4096);
    FRONT_RING_INIT(&rx, rx_page, 4096);
    for (int i = 0; i < RING; i++)
        next[i] = i + 1;
}

static int fe_failed(void)
{
    return 0;
}

static inline void grant(unsigned ref, uint16_t flags)
{
    table[ref].domid = PEER;
    table[ref].frame = ref + 1000;
    xen_wmb();
    *(volatile uint16_t *)&table[ref].flags = flags;
}

static inline void revoke(unsigned ref)
{
    uint16_t expected, now = *(volatile uint16_t *)&table[ref].flags;
    do {
        expected = now;
        if (expected & (GTF_reading | GTF_writing))
            abort();
        now = __sync_val_compare_and_swap(&table[ref].flags, expected, 0);
    } while (now != expected);
}

static NOINLINE int fe_submit(int n)
{
    int notify;
    for (int i = 0; i < n; i++) {
        uint16_t id = first_free;
        first_free = next[id];
        busy[id] = 1;
        grant(id, GTF_permit_access | GTF_readonly);
        netif_tx_request_t *request = RING_GET_REQUEST(&tx, tx.req_prod_pvt);
        request->gref = id;
        request->offset = 0;
        request->flags = 0;
        request->id = id;
        request->size = 64;
        tx.req_prod_pvt++;
    }
    RING_PUSH_REQUESTS_AND_CHECK_NOTIFY(&tx, notify);
    events += notify;
    return n;
}

static NOINLINE int fe_reap(void)
{
    int done = 0, more;
    do {
        RING_IDX prod = *(volatile RING_IDX *)&tx.sring->rsp_prod;
        if (RING_RESPONSE_PROD_OVERFLOW(&tx, prod))
            abort();
        xen_rmb();
        for (; tx.rsp_cons != prod; tx.rsp_cons++) {
            netif_tx_response_t response;
            RING_COPY_RESPONSE(&tx, tx.rsp_cons, &response);
            if (response.status == NETIF_RSP_NULL)
                continue;
            if (response.id >= RING || !busy[response.id])
                abort();
            busy[response.id] = 0;
            revoke(response.id);
            next[response.id] = first_free;
            first_free = response.id;
            done++;
        }
        RING_FINAL_CHECK_FOR_RESPONSES(&tx, more);
    } while (more);
    return done;
}

static NOINLINE void fe_refill(void)
{
    int notify;
    RING_IDX prod = rx.req_prod_pvt;
    if (RING - (prod - rx.rsp_cons) < REFILL)
        return;
    for (; prod - rx.rsp_cons < RING; prod++) {
        unsigned id = prod & (RING - 1), ref = RING + id;
        grant(ref, GTF_permit_access);
        netif_rx_request_t *request = RING_GET_REQUEST(&rx, prod);
        request->id = id;
        request->pad = 0;
        request->gref = ref;
    }
    rx.req_prod_pvt = prod;
    RING_PUSH_REQUESTS_AND_CHECK_NOTIFY(&rx, notify);
    events += notify;
}

static NOINLINE int fe_poll(int budget)
{
    int packets = 0;
    RING_IDX prod = *(volatile RING_IDX *)&rx.sring->rsp_prod;
    if (RING_RESPONSE_PROD_OVERFLOW(&rx, prod))
        abort();
    xen_rmb();
    for (; rx.rsp_cons != prod && packets < budget; packets++) {
        netif_rx_response_t response;
        unsigned id = rx.rsp_cons & (RING - 1);
        RING_COPY_RESPONSE(&rx, rx.rsp_cons, &response);
        rx.rsp_cons++;
        if (response.id != id)
            abort();
        revoke(RING + id);
        if (response.status < 14 || response.offset + response.status > 4096 ||
            response.flags & (NETRXF_extra_info | NETRXF_more_data))
            abort();
        /* The layer above looks at the packet, and is done before we go on. */
        __asm__ volatile("" ::"r"(id), "r"(response.offset), "r"(response.status) : "memory");
    }
    return packets;
}
