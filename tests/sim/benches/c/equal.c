/* A frontend in C on Xen's ring.h with the duties of ours, every one of them:
 *
 *  - pages are owned: the layer above gets a page to fill and hands it in; a received page is its
 *    own until it returns it, from whatever thread, to a pool without a lock;
 *  - sent pages are kept at hand, up to 64;
 *  - each id and each slot owns its grant reference, which it loses when the backend keeps using
 *    the page; page and reference then wait in quarantine;
 *  - a page's record says whose bytes it may hold, and what a peer must not see is cleared;
 *  - an id is free, staged, published; a response to any but a published one breaks the device,
 *    and so does a NULL without an extra, or an index beyond what was published or going back;
 *  - what was published last is known privately, not read back from the shared page;
 *  - packets of several slots, and extras, are received (out of line);
 *  - everything is counted. */
#include "harness.h"
#include "pages.h"

#define SPARE 64
/* Not a number of a domain: nobody is trusted with any page. */
#define NOBODY (~0u)

struct stats {
    uint64_t tx_packets, tx_bytes, tx_slots, tx_completed, tx_error, tx_dropped;
    uint64_t rx_packets, rx_bytes, rx_slots, rx_bad, bad_length;
    uint64_t grants, revokes, quarantined, clears, cleared_bytes, no_frame;
};

struct tx_slot {
    int32_t ref; /* -1: in quarantine */
    struct page *page;
    uint32_t index;
    uint16_t next;
};

struct rx_slot {
    int32_t ref;
    struct page *page;
};

static struct frontend {
    netif_tx_front_ring_t tx;
    netif_rx_front_ring_t rx;
    RING_IDX tx_published, tx_seen, rx_published, rx_seen;
    struct tx_slot tx_slot[RING];
    struct rx_slot rx_slot[RING];
    struct page *spare[SPARE];
    unsigned spares, bare, held;
    uint16_t tx_free, domain, largest, extras;
    int live, broken;
    uint32_t trusted_with;
    struct { struct page *page; int32_t ref; } quarantine[2 * RING];
    struct stats stats;
} fe;

/* -- whose bytes a page holds --------------------------------------------------------------- */

static COLD void clear(struct page *page, uint16_t start, uint16_t end)
{
    int clean = page->known == fe.trusted_with ||
                (page->known == ZERO && fe.trusted_with != NOBODY);
    unsigned from = clean ? page->dirty_start : 0, to = clean ? page->dirty_end : PAGE;
    for (unsigned at = from; at < to; at++) {
        if (at < start || at >= end) {
            page->bytes[at] = 0;
            fe.stats.cleared_bytes++;
        }
    }
    fe.stats.clears++;
    page->known = fe.domain;
}

static inline void grant(int32_t ref, struct page *page, uint16_t start, uint16_t end,
                         uint16_t flags)
{
    if (page->known != fe.trusted_with || page->dirty_start < start || page->dirty_end > end)
        clear(page, start, end);
    page->dirty_start = PAGE;
    page->dirty_end = 0;
    table[ref].frame = page->gfn;
    table[ref].domid = fe.domain;
    xen_wmb();
    *(volatile uint16_t *)&table[ref].flags = flags;
}

/* Ends access in one exchange that fails while the peer uses the page. */
static inline int revoke(int32_t ref)
{
    uint16_t now = *(volatile uint16_t *)&table[ref].flags;
    return !(now & (GTF_reading | GTF_writing)) &&
           __sync_bool_compare_and_swap(&table[ref].flags, now, 0);
}

static COLD void admit(struct page *page, int32_t ref)
{
    fe.quarantine[fe.held].page = page;
    fe.quarantine[fe.held++].ref = ref;
    fe.stats.quarantined++;
}

/* -- transmit ------------------------------------------------------------------------------- */

static inline struct page *tx_page(void)
{
    return fe.spares ? fe.spare[--fe.spares] : pool_take_one();
}

/* Sends `size` bytes; 0 if there is no room. */
static inline int tx_send(struct page *page, uint16_t offset, uint16_t size, uint16_t largest)
{
    if (size < 14 || size > largest) {
        fe.stats.bad_length++;
        pool_put(page);
        return 1;
    }
    uint16_t id = fe.tx_free;
    if (fe.tx.req_prod_pvt - fe.tx.rsp_cons >= RING || id >= RING)
        return 0;
    struct tx_slot *slot = &fe.tx_slot[id];
    grant(slot->ref, page, offset, offset + size, GTF_permit_access | GTF_readonly);
    fe.tx_free = slot->next;
    slot->page = page;
    slot->index = fe.tx.req_prod_pvt;
    netif_tx_request_t *request = RING_GET_REQUEST(&fe.tx, fe.tx.req_prod_pvt);
    request->gref = slot->ref;
    request->offset = offset;
    request->flags = 0;
    request->id = id;
    request->size = size;
    fe.tx.req_prod_pvt++;
    fe.stats.tx_packets++;
    fe.stats.tx_bytes += size;
    return 1;
}

static inline int publish(RING_IDX *published, RING_IDX prod, RING_IDX *shared,
                          volatile RING_IDX *event)
{
    RING_IDX old = *published;
    if (old == prod || fe.broken)
        return 0;
    xen_wmb();
    *(volatile RING_IDX *)shared = prod;
    *published = prod;
    xen_mb();
    return prod - *event < prod - old;
}

static NOINLINE int fe_submit(int n)
{
    int sent = 0;
    uint16_t largest = fe.largest;
    if (!fe.live || fe.broken)
        return 0;
    for (; sent < n; sent++) {
        struct page *page = tx_page();
        if (!page)
            break;
        mark(page, 0, 64); /* the layer above has filled it */
        if (!tx_send(page, 0, 64, largest)) {
            pool_put(page);
            break;
        }
    }
    RING_IDX slots = fe.tx.req_prod_pvt - fe.tx_published;
    fe.stats.tx_slots += slots;
    fe.stats.grants += slots;
    events += publish(&fe.tx_published, fe.tx.req_prod_pvt, &fe.tx.sring->req_prod,
                      &fe.tx.sring->req_event);
    return sent;
}

/* Whether the response is to a request of its own; -1 if it breaks the rules. */
static COLD int tx_unusual(int16_t status)
{
    if (status == NETIF_RSP_NULL) {
        if (fe.extras == 0)
            return -1;
        fe.extras--;
        return 0;
    }
    if (status == NETIF_RSP_DROPPED)
        fe.stats.tx_dropped++;
    else
        fe.stats.tx_error++;
    return 1;
}

/* Looks once how far the peer has come; 0 if it can't have. */
static inline int seen(RING_IDX prod, RING_IDX cons, RING_IDX *last, RING_IDX published)
{
    if (prod - cons > published - cons || prod - cons < *last - cons)
        return 0;
    *last = prod;
    xen_rmb();
    return 1;
}

static NOINLINE int fe_reap(void)
{
    uint64_t done = 0, kept = fe.stats.quarantined;
    if (fe.broken)
        return 0;
    RING_IDX prod = *(volatile RING_IDX *)&fe.tx.sring->rsp_prod;
    RING_IDX cons = fe.tx.rsp_cons, published = fe.tx_published;
    if (!seen(prod, cons, &fe.tx_seen, published))
        goto broken;
    while (cons != prod) {
        netif_tx_response_t response;
        RING_COPY_RESPONSE(&fe.tx, cons, &response);
        cons++;
        if (response.status != NETIF_RSP_OKAY) {
            int own = tx_unusual(response.status);
            if (own < 0)
                goto broken;
            if (own == 0)
                continue;
        }
        if (response.id >= RING)
            goto broken;
        struct tx_slot *slot = &fe.tx_slot[response.id];
        struct page *page = slot->page;
        /* Free, or staged and not published? */
        if (!page || published - slot->index - 1 >= RING)
            goto broken;
        slot->page = NULL;
        done++;
        if (!revoke(slot->ref)) {
            admit(page, slot->ref);
            slot->ref = -1; /* the id is retired */
            continue;
        }
        slot->next = fe.tx_free;
        fe.tx_free = response.id;
        if (fe.spares < SPARE)
            fe.spare[fe.spares++] = page;
        else
            pool_put(page);
    }
    fe.tx.rsp_cons = cons;
    fe.stats.tx_completed += done;
    fe.stats.revokes += done - (fe.stats.quarantined - kept);
    return done;
broken:
    fe.broken = 1;
    return 0;
}

/* -- receive -------------------------------------------------------------------------------- */

/* A slot without a reference takes that of the free slot whose turn comes next. */
static COLD int32_t borrow(unsigned id)
{
    for (unsigned ahead = 1; ahead < RING; ahead++) {
        struct rx_slot *slot = &fe.rx_slot[(id + ahead) % RING];
        if (!slot->page && slot->ref >= 0) {
            int32_t ref = slot->ref;
            slot->ref = -1;
            return ref;
        }
    }
    return -1;
}

static NOINLINE void fe_refill(void)
{
    RING_IDX prod = fe.rx.req_prod_pvt;
    unsigned room = RING - (prod - fe.rx.rsp_cons);
    if (fe.broken)
        return;
    room = room > fe.bare ? room - fe.bare : 0;
    if (room < REFILL)
        return;
    uint32_t at = 0;
    unsigned count = pool_take(room, &at);
    if (count < room)
        fe.stats.no_frame++;
    fe.stats.grants += count;
    for (; count > 0; count--) {
        struct page *page = &pages[at];
        at = __atomic_load_n(&page->next, __ATOMIC_RELAXED);
        unsigned id = prod & (RING - 1);
        struct rx_slot *slot = &fe.rx_slot[id];
        if (slot->ref < 0)
            slot->ref = borrow(id);
        grant(slot->ref, page, 0, 0, GTF_permit_access);
        slot->page = page;
        netif_rx_request_t *request = RING_GET_REQUEST(&fe.rx, prod);
        request->id = id;
        request->pad = 0;
        request->gref = slot->ref;
        prod++;
    }
    fe.rx.req_prod_pvt = prod;
    events += publish(&fe.rx_published, prod, &fe.rx.sring->req_prod, &fe.rx.sring->req_event);
}

/* The layer above: it looks at the packet, and returns the page, which it may have shared. */
static inline void deliver(struct page *page, unsigned offset, unsigned length)
{
    __atomic_store_n(&page->shares, 1, __ATOMIC_RELAXED);
    __asm__ volatile("" ::"r"(page->bytes + offset), "r"(length) : "memory");
    if (__atomic_load_n(&page->shares, __ATOMIC_ACQUIRE) == 1 ||
        __atomic_sub_fetch(&page->shares, 1, __ATOMIC_ACQ_REL) == 0)
        pool_put(page);
}

/* Takes back the page of a slot; NULL if the backend still uses it, with *bad set. */
static inline struct page *rx_take(unsigned id)
{
    struct rx_slot *slot = &fe.rx_slot[id];
    struct page *page = slot->page;
    if (!page)
        return NULL;
    slot->page = NULL;
    if (!revoke(slot->ref)) {
        admit(page, slot->ref);
        slot->ref = -1;
        fe.bare++;
        return NULL;
    }
    fe.stats.revokes++;
    return page;
}

/* A packet of several slots, or with extras. Returns its bytes, -1 if it is dropped, -2 if the
 * backend broke a rule. */
static NOINLINE int rx_chain(netif_rx_response_t response, RING_IDX *cons, RING_IDX prod)
{
    struct { struct page *page; unsigned offset, length; } parts[18];
    unsigned count = 0, id = (*cons - 1) & (RING - 1);
    int bytes = 0, bad = 0, first = 1;
    for (;;) {
        if (response.id != id)
            return -2;
        struct page *page = rx_take(id);
        if (!page || response.status < 0 || response.offset + response.status > PAGE ||
            count == 18) {
            if (page)
                pool_put(page);
            bad = 1;
        } else {
            parts[count].page = page;
            parts[count].offset = response.offset;
            parts[count++].length = response.status;
            bytes += response.status;
        }
        for (int more = first && (response.flags & NETRXF_extra_info); more; first = 0) {
            netif_extra_info_t extra;
            if (*cons == prod)
                return -1;
            memcpy(&extra, RING_GET_RESPONSE(&fe.rx, *cons), sizeof extra);
            page = rx_take((*cons)++ & (RING - 1));
            if (page)
                pool_put(page);
            bad |= extra.type != XEN_NETIF_EXTRA_TYPE_GSO || extra.u.gso.size == 0;
            more = extra.flags & XEN_NETIF_EXTRA_FLAG_MORE;
        }
        first = 0;
        if (!(response.flags & NETRXF_more_data))
            break;
        if (*cons == prod) {
            bad = 1;
            break;
        }
        RING_COPY_RESPONSE(&fe.rx, *cons, &response);
        id = (*cons)++ & (RING - 1);
    }
    for (unsigned i = 0; i < count; i++)
        deliver(parts[i].page, parts[i].offset, parts[i].length);
    return bad || bytes < 14 ? -1 : bytes;
}

static NOINLINE int fe_poll(int budget)
{
    int looked = 0;
    if (fe.broken)
        return 0;
    RING_IDX prod = *(volatile RING_IDX *)&fe.rx.sring->rsp_prod;
    RING_IDX cons = fe.rx.rsp_cons;
    if (!seen(prod, cons, &fe.rx_seen, fe.rx_published))
        goto broken;
    while (cons != prod && looked < budget) {
        netif_rx_response_t response;
        unsigned id = cons & (RING - 1);
        int bytes;
        RING_COPY_RESPONSE(&fe.rx, cons, &response);
        cons++;
        looked++;
        if (!(response.flags & (NETRXF_more_data | NETRXF_extra_info))) {
            if (response.id != id)
                goto broken;
            struct page *page = rx_take(id);
            bytes = response.status;
            if (!page) {
                fe.stats.rx_bad++;
                continue;
            }
            if (bytes < 14 || response.offset + bytes > PAGE) {
                fe.stats.rx_bad++;
                pool_put(page);
                continue;
            }
            deliver(page, response.offset, bytes);
        } else {
            bytes = rx_chain(response, &cons, prod);
            if (bytes == -2)
                goto broken;
            if (bytes < 0) {
                fe.stats.rx_bad++;
                continue;
            }
        }
        fe.stats.rx_packets++;
        fe.stats.rx_bytes += bytes;
    }
    fe.stats.rx_slots += cons - fe.rx.rsp_cons;
    fe.rx.rsp_cons = cons;
    return looked;
broken:
    fe.broken = 1;
    return 0;
}

static void fe_init(netif_tx_sring_t *tx, netif_rx_sring_t *rx)
{
    FRONT_RING_INIT(&fe.tx, tx, 4096);
    FRONT_RING_INIT(&fe.rx, rx, 4096);
    fe.domain = PEER;
    fe.largest = 1518;
    fe.live = 1;
    fe.trusted_with = PEER;
    for (int i = 0; i < RING; i++) {
        fe.tx_slot[i].next = i + 1;
        fe.tx_slot[i].ref = 8 + i;
        fe.rx_slot[i].ref = 8 + RING + i;
    }
    pages_init();
}

static int fe_failed(void)
{
    return fe.broken || fe.stats.rx_bad || fe.stats.quarantined || fe.stats.cleared_bytes;
}
