/* What both ways of the backend in C share: its state, rings, statistics. */
#include "xen.h"
#include "pages.h"

#define BATCH 64
#define OPS 256
#define MOST_OPS 34
#define HEADROOM 128
#define FRAGMENTS 18
#define FATAL 20
#define UNIT 2560
#define OVERHEAD 1024
#define QUEUE_PACKETS 256
#define QUEUE_PAGES 512
#define PATIENCE 10000000000ull

enum checksum { UNKNOWN, COMPLETE, BLANK };
struct meta {
    uint8_t checksum, gso_type;
    uint16_t gso_size;
};
struct fragment {
    struct page *page;
    uint32_t start, len;
};
/* As the layers above have it. */
struct packet {
    uint32_t count;
    struct fragment fragment[FRAGMENTS];
    struct meta meta;
};

struct extent {
    grant_ref_t gref;
    uint16_t offset, size;
};
struct staged_in {
    uint16_t slots_end, ops_end, total;
    uint8_t why;
    struct meta meta;
};
struct staged_out {
    uint8_t slots, failed;
    uint16_t ops_end, len, flags;
    struct meta meta;
};
struct waiting {
    struct fragment first;
    uint8_t others, slots;
    uint16_t len, flags;
    struct meta meta;
};

enum why { FINE, RUNT, TOO_MANY, SIZES, MULTICAST, NO_SG, NO_GSO, COPY_FAILED, NO_FRAME, WHYS };
struct stats {
    uint64_t from_packets, from_bytes, from_slots, dropped[WHYS];
    uint64_t to_packets, to_bytes, to_slots, bad_length, queue_full, stalled, stalls, unconnected;
    uint64_t copy_failed, high_water, hypercalls, ops, failures, copied, events, offload;
};

static struct backend {
    netif_tx_back_ring_t tx;
    netif_rx_back_ring_t rx;
    RING_IDX tx_seen, tx_published, rx_seen, rx_published;
    uint16_t domain, headroom;
    int live, broken, sg, gso, takes_blank, takes_notify, tell_tx, tell_rx, progress;
    unsigned queues;
    uint64_t debt;
    /* from the client */
    struct extent extent[FRAGMENTS];
    unsigned extents;
    uint16_t total;
    struct meta meta;
    int32_t answer[RING];
    unsigned answers;
    struct staged_in in[BATCH];
    unsigned staged_in;
    gnttab_copy_t op[OPS];
    unsigned ops;
    struct page *page[OPS];
    unsigned pages;
    /* to the client */
    struct waiting waiting[QUEUE_PACKETS];
    unsigned first, count;
    struct fragment other[QUEUE_PAGES];
    unsigned first_other, others;
    netif_rx_request_t posted[RING];
    unsigned held;
    struct staged_out out[BATCH];
    unsigned staged_out;
    uint64_t stuck, wanted;
    struct stats stats;
} be;

static uint64_t now(void)
{
    return 1;
}

/* The hypervisor's part. */
static NOINLINE void grant_copy(gnttab_copy_t *op, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        op[i].status = GNTST_okay;
    __asm__ volatile("" ::"r"(op) : "memory");
}

static inline void drop_share(struct page *page)
{
    if (__atomic_load_n(&page->shares, __ATOMIC_ACQUIRE) == 1 ||
        __atomic_sub_fetch(&page->shares, 1, __ATOMIC_ACQ_REL) == 0)
        pool_put(page);
}

/* Looks once how far the client has come; 0 if it can't have. */
static inline int seen(RING_IDX prod, RING_IDX cons, RING_IDX answered, RING_IDX *last)
{
    RING_IDX there = prod - cons;
    if (there > RING - (cons - answered) || there < *last - cons)
        return 0;
    *last = prod;
    xen_rmb();
    return 1;
}

static inline int publish(RING_IDX *published, RING_IDX prod, RING_IDX *shared,
                          volatile RING_IDX *event)
{
    RING_IDX old = *published;
    if (old == prod || be.broken)
        return 0;
    xen_wmb();
    *(volatile RING_IDX *)shared = prod;
    *published = prod;
    xen_mb();
    return prod - *event < prod - old;
}
