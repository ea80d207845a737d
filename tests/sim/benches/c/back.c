/* A backend in C on Xen's ring.h with the duties of ours, every one of them:
 *
 *     back poll|deliver BATCH PACKETS
 *
 *  - what the client sends is copied into pages of ours by the hypervisor, up to 64 packets or 256
 *    operations a hypercall, headroom in front, dense; no operation crosses the end of a page;
 *  - packets of several slots, and extras, are taken (out of line); sizes, offsets, numbers of slots and
 *    kinds of extras are checked as ours checks them, and an index beyond the ring or going back;
 *  - the status of each operation decides about its packet; each slot is answered, in order;
 *  - work is counted, and what a packet takes too much comes off the next turn;
 *  - what goes to the client waits in a queue with bounds in packets and in pages, each page counted
 *    by its readers; a client that posts nothing is found to be stalled;
 *  - a packet goes out when there are pages for all of it; what was published last is known privately;
 *  - everything is counted.
 *
 * scripts/instructions collects inside be_* only, and not in grant_copy. */
#include "back.h"
#include "back_from_client.h"
#include "back_to_client.h"

/* A client that sends and takes everything. */

static netif_tx_front_ring_t fe_tx;
static netif_rx_front_ring_t fe_rx;
static uint64_t asked; /* events that the backend wanted */

static NOINLINE void client_sends(unsigned count)
{
    int notify;
    for (unsigned i = 0; i < count; i++) {
        netif_tx_request_t *request = RING_GET_REQUEST(&fe_tx, fe_tx.req_prod_pvt);
        request->gref = 8 + i;
        request->offset = 0;
        request->flags = 0;
        request->id = fe_tx.req_prod_pvt % RING;
        request->size = 64;
        fe_tx.req_prod_pvt++;
    }
    RING_PUSH_REQUESTS_AND_CHECK_NOTIFY(&fe_tx, notify);
    asked += notify;
}

static NOINLINE unsigned client_is_answered(void)
{
    unsigned answers = 0;
    for (RING_IDX prod = fe_tx.sring->rsp_prod; fe_tx.rsp_cons != prod; fe_tx.rsp_cons++)
        answers += RING_GET_RESPONSE(&fe_tx, fe_tx.rsp_cons)->status == NETIF_RSP_OKAY;
    fe_tx.sring->rsp_event = fe_tx.rsp_cons + 1;
    return answers;
}

static NOINLINE void client_posts(unsigned count)
{
    int notify;
    for (unsigned i = 0; i < count; i++) {
        netif_rx_request_t *request = RING_GET_REQUEST(&fe_rx, fe_rx.req_prod_pvt);
        request->id = fe_rx.req_prod_pvt % RING;
        request->gref = 300 + request->id;
        fe_rx.req_prod_pvt++;
    }
    RING_PUSH_REQUESTS_AND_CHECK_NOTIFY(&fe_rx, notify);
    asked += notify;
}

static NOINLINE unsigned client_receives(void)
{
    unsigned packets = 0;
    for (RING_IDX prod = fe_rx.sring->rsp_prod; fe_rx.rsp_cons != prod; fe_rx.rsp_cons++)
        packets += RING_GET_RESPONSE(&fe_rx, fe_rx.rsp_cons)->status == 64;
    fe_rx.sring->rsp_event = fe_rx.rsp_cons + 1;
    return packets;
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    unsigned batch = atoi(argv[2]), packets = atoi(argv[3]), done = 0;
    int sends = strcmp(argv[1], "poll") == 0;
    netif_tx_sring_t *tx = aligned_alloc(4096, 4096);
    netif_rx_sring_t *rx = aligned_alloc(4096, 4096);
    SHARED_RING_INIT(tx);
    SHARED_RING_INIT(rx);
    FRONT_RING_INIT(&fe_tx, tx, 4096);
    FRONT_RING_INIT(&fe_rx, rx, 4096);
    BACK_RING_INIT(&be.tx, tx, 4096);
    BACK_RING_INIT(&be.rx, rx, 4096);
    pages_init();
    be.domain = PEER;
    be.headroom = HEADROOM;
    be.live = be.sg = be.gso = be.takes_blank = be.takes_notify = 1;
    struct packet *waiting = calloc(RING, sizeof *waiting);
    uint32_t index;
    if (batch > BATCH || !pool_take(1, &index))
        return 2;
    struct page *page = &pages[index];
    page->shares = 1;
    while (done < packets) {
        if (sends) {
            client_sends(batch);
            if (be_poll(batch) != batch)
                return 1;
            done += client_is_answered();
        } else {
            client_posts(batch);
            for (unsigned i = 0; i < batch; i++) {
                __atomic_fetch_add(&page->shares, 1, __ATOMIC_RELAXED);
                struct fragment fragment = { page, 0, 64 };
                waiting[i].count = 1;
                waiting[i].fragment[0] = fragment;
            }
            if (be_deliver(waiting, batch) != (int)batch)
                return 1;
            be_flush();
            done += client_receives();
        }
        be_flush();
    }
    struct stats *stats = &be.stats;
    printf("%u packets, %lu hypercalls, %lu events\n", done, (unsigned long)stats->hypercalls,
           (unsigned long)stats->events);
    for (unsigned why = 0; why < WHYS; why++) {
        if (stats->dropped[why])
            return 1;
    }
    return be.broken || stats->failures || stats->stalled || stats->queue_full ||
           stats->bad_length || stats->copied != 64ull * done;
}
