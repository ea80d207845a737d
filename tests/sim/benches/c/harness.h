/* What the C references share: Xen's own headers, a backend that answers everything, and the loop.
 *
 *     PROGRAM PATH BATCH PACKETS
 *
 * runs one path, `tx` (submit + reap) or `rx` (poll + refill), in batches. scripts/instructions
 * collects inside fe_* only: the backend is not measured. */
#include "xen.h"

/* The frontend. All packets have 64 bytes. */
static void fe_init(netif_tx_sring_t *tx, netif_rx_sring_t *rx);
static int fe_submit(int n);      /* sends n packets, a page each; returns how many */
static int fe_reap(void);         /* takes back what has been sent; returns how many */
static void fe_refill(void);      /* posts pages until the receive ring is full, REFILL or more */
static int fe_poll(int budget);   /* receives; returns how many packets */
static int fe_failed(void);       /* whether anything went wrong */

static grant_entry_v1_t table[2 * RING + 16];
static uint64_t events;

static netif_tx_back_ring_t be_tx;
static netif_rx_back_ring_t be_rx;

static NOINLINE void backend_tx(void)
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

static NOINLINE void backend_rx(int n)
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
    if (argc != 4)
        return 2;
    int batch = atoi(argv[2]), packets = atoi(argv[3]), receive = strcmp(argv[1], "rx") == 0;
    netif_tx_sring_t *tx = aligned_alloc(4096, 4096);
    netif_rx_sring_t *rx = aligned_alloc(4096, 4096);
    SHARED_RING_INIT(tx);
    SHARED_RING_INIT(rx);
    BACK_RING_INIT(&be_tx, tx, 4096);
    BACK_RING_INIT(&be_rx, rx, 4096);
    fe_init(tx, rx);
    long done = 0;
    if (receive)
        fe_refill();
    while (done < packets) {
        if (receive) {
            backend_rx(batch);
            done += fe_poll(batch);
            fe_refill();
        } else {
            fe_submit(batch);
            backend_tx();
            done += fe_reap();
        }
        if (fe_failed())
            return 1;
    }
    printf("%ld packets, %lu events\n", done, (unsigned long)events);
    return 0;
}
