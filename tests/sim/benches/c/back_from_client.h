/* From the client: packets off its transmit ring into pages of ours. */

/* The pages of a batch, taken together. */
struct frames {
    uint32_t next;
    unsigned left;
};

static inline struct page *next_page(struct frames *frames)
{
    if (frames->left == 0) {
        return pool_take_one();
    }
    struct page *page = &pages[frames->next];
    frames->next = __atomic_load_n(&page->next, __ATOMIC_RELAXED);
    frames->left--;
    return page;
}

static inline int within_page(uint16_t offset, uint16_t size)
{
    return (uint32_t)offset + size <= PAGE;
}

/* A packet of several slots, or with extras; the first is read. -1 if the client broke a rule. */
static NOINLINE int read_long(const netif_tx_request_t *first)
{
    int why = FINE;
    if (first->flags & NETTXF_extra_info) {
        int more = 1;
        while (more) {
            netif_extra_info_t extra;
            if (be.tx.req_cons == be.tx_seen)
                return -1;
            memcpy(&extra, RING_GET_REQUEST(&be.tx, be.tx.req_cons), sizeof extra);
            be.tx.req_cons++;
            be.answer[be.answers++] = -1;
            switch (extra.type) {
            case XEN_NETIF_EXTRA_TYPE_GSO:
                if (extra.u.gso.size == 0 || extra.u.gso.type == 0 || extra.u.gso.type > 2)
                    return -1;
                be.meta.gso_type = extra.u.gso.type;
                be.meta.gso_size = extra.u.gso.size;
                break;
            case XEN_NETIF_EXTRA_TYPE_MCAST_ADD:
            case XEN_NETIF_EXTRA_TYPE_MCAST_DEL:
                why = MULTICAST;
                break;
            case XEN_NETIF_EXTRA_TYPE_HASH:
                break;
            default:
                return -1;
            }
            more = extra.flags & XEN_NETIF_EXTRA_FLAG_MORE;
        }
        if (be.meta.gso_type && !be.gso && why == FINE)
            why = NO_GSO;
    }
    uint16_t own = first->size;
    unsigned slots = 1;
    int more = first->flags & NETTXF_more_data;
    if (more && !be.sg && why == FINE)
        why = NO_SG;
    be.extent[0].gref = first->gref;
    be.extent[0].offset = first->offset;
    be.extents = 1;
    while (more) {
        netif_tx_request_t request;
        if (be.tx.req_cons == be.tx_seen)
            return -1;
        RING_COPY_REQUEST(&be.tx, be.tx.req_cons, &request);
        be.tx.req_cons++;
        be.answer[be.answers++] = request.id;
        if (++slots >= FATAL || !within_page(request.offset, request.size))
            return -1;
        if (request.size > own) {
            if (why == FINE)
                why = SIZES;
        } else {
            own -= request.size;
        }
        if (be.extents < FRAGMENTS) {
            struct extent extent = { request.gref, request.offset, request.size };
            be.extent[be.extents++] = extent;
        } else if (why == FINE) {
            why = TOO_MANY;
        }
        more = request.flags & NETTXF_more_data;
    }
    be.extent[0].size = own;
    if (!within_page(first->offset, own))
        return why == FINE ? -1 : why;
    return why;
}

/* Reads the next packet's slots: how it is, -1 if the client broke a rule. */
static inline int read_packet(void)
{
    netif_tx_request_t first;
    RING_COPY_REQUEST(&be.tx, be.tx.req_cons, &first);
    be.tx.req_cons++;
    be.answer[be.answers++] = first.id;
    be.total = first.size;
    be.meta.checksum = first.flags & NETTXF_csum_blank ? BLANK : UNKNOWN;
    be.meta.gso_type = 0;
    if (first.flags & (NETTXF_extra_info | NETTXF_more_data)) {
        int why = read_long(&first);
        return why == FINE && first.size < 14 ? RUNT : why;
    }
    if (!within_page(first.offset, first.size))
        return -1;
    be.extent[0].gref = first.gref;
    be.extent[0].offset = first.offset;
    be.extent[0].size = first.size;
    be.extents = 1;
    return first.size < 14 ? RUNT : FINE;
}

static inline void copy_in(grant_ref_t gref, unsigned offset, struct page *page, unsigned at,
                           unsigned len)
{
    gnttab_copy_t *op = &be.op[be.ops++];
    mark(page, at, at + len);
    op->source.u.ref = gref;
    op->source.domid = be.domain;
    op->source.offset = offset;
    op->dest.u.gmfn = page->gfn;
    op->dest.domid = DOMID_SELF;
    op->dest.offset = at;
    op->len = len;
    op->flags = GNTCOPY_source_gref;
    op->status = GNTST_general_error;
}

/* Brings the packet into pages, densely; 0 if there are none. */
static inline int write_ops(struct frames *frames)
{
    struct page *page = next_page(frames);
    if (!page)
        return 0;
    be.page[be.pages++] = page;
    unsigned at = be.headroom;
    for (unsigned i = 0; i < be.extents; i++) {
        unsigned offset = be.extent[i].offset, left = be.extent[i].size;
        while (left > 0) {
            if (at == PAGE) {
                page = next_page(frames);
                if (!page)
                    return 0;
                be.page[be.pages++] = page;
                at = 0;
            }
            unsigned len = left < PAGE - at ? left : PAGE - at;
            copy_in(be.extent[i].gref, offset, page, at, len);
            offset += len;
            at += len;
            left -= len;
        }
    }
    return 1;
}

static COLD void forget(unsigned pages_before, unsigned ops_before)
{
    be.ops = ops_before;
    while (be.pages > pages_before)
        pool_put(be.page[--be.pages]);
}

static inline int stage_in(uint64_t limit, uint64_t *spent)
{
    unsigned waiting = be.tx_seen - be.tx.req_cons;
    struct frames frames = { 0, 0 };
    frames.left = pool_take(waiting < BATCH ? waiting : BATCH, &frames.next);
    int fine = 1;
    while (*spent < limit && be.staged_in < BATCH && be.ops <= OPS - MOST_OPS &&
           be.tx.req_cons != be.tx_seen) {
        unsigned slots = be.answers, ops = be.ops, kept = be.pages;
        int why = read_packet();
        if (why < 0) {
            fine = 0;
            break;
        }
        if (why == FINE && !write_ops(&frames)) {
            forget(kept, ops);
            why = NO_FRAME;
        }
        unsigned count = be.answers - slots;
        if (be.ops - ops > count)
            count = be.ops - ops;
        if (be.meta.gso_type) {
            unsigned segments = be.total / be.meta.gso_size;
            count = segments > count ? segments : count;
        }
        uint64_t work = count * OVERHEAD + be.total;
        *spent += work > UNIT ? work : UNIT;
        struct staged_in *staged = &be.in[be.staged_in++];
        staged->slots_end = be.answers;
        staged->ops_end = be.ops;
        staged->total = be.total;
        staged->why = why;
        staged->meta = be.meta;
    }
    while (frames.left > 0)
        pool_put(next_page(&frames));
    return fine;
}

static COLD void find_failed_in(void)
{
    unsigned op = 0;
    for (unsigned i = 0; i < be.staged_in; i++) {
        for (; op < be.in[i].ops_end; op++) {
            if (be.op[op].status != GNTST_okay) {
                be.in[i].why = COPY_FAILED;
                be.stats.failures++;
            }
        }
    }
}

static inline int all_okay(void)
{
    for (unsigned i = 0; i < be.ops; i++) {
        if (be.op[i].status != GNTST_okay)
            return 0;
    }
    return 1;
}

static inline void submit_in(void)
{
    if (be.ops == 0)
        return;
    grant_copy(be.op, be.ops);
    be.stats.hypercalls++;
    be.stats.ops += be.ops;
    if (!all_okay())
        find_failed_in();
}

/* The layer above: it looks at the packet, and drops it. */
static inline void sink(struct packet *packet)
{
    struct fragment *first = &packet->fragment[0];
    __asm__ volatile("" ::"r"(first->page->bytes + first->start), "r"(first->len) : "memory");
    for (unsigned i = 0; i < packet->count; i++)
        pool_put(packet->fragment[i].page);
}

static NOINLINE void gather(struct packet *packet, unsigned *page, unsigned total)
{
    unsigned at = be.headroom, left = total;
    packet->count = 0;
    while (left > 0 && *page < be.pages) {
        unsigned len = left < PAGE - at ? left : PAGE - at;
        struct fragment fragment = { be.page[(*page)++], at, len };
        packet->fragment[packet->count++] = fragment;
        left -= len;
        at = 0;
    }
}

static inline unsigned finish_in(void)
{
    unsigned slot = 0, page = 0, packets = 0;
    uint64_t bytes = 0, copied = 0;
    RING_IDX prod = be.tx.rsp_prod_pvt;
    for (unsigned i = 0; i < be.staged_in; i++) {
        struct staged_in *staged = &be.in[i];
        int16_t status = NETIF_RSP_OKAY;
        struct packet packet;
        packet.meta = staged->meta;
        if (staged->why == FINE && !staged->meta.gso_type && be.headroom + staged->total <= PAGE) {
            packet.count = 1;
            packet.fragment[0].page = be.page[page++];
            packet.fragment[0].start = be.headroom;
            packet.fragment[0].len = staged->total;
            copied += staged->total;
            bytes += staged->total;
            packets++;
            sink(&packet);
        } else if (staged->why == FINE) {
            gather(&packet, &page, staged->total);
            copied += staged->total;
            bytes += staged->total;
            packets++;
            sink(&packet);
        } else {
            be.stats.dropped[staged->why]++;
            if (staged->why == COPY_FAILED) {
                gather(&packet, &page, staged->total);
                for (unsigned k = 0; k < packet.count; k++)
                    pool_put(packet.fragment[k].page);
            }
            status = staged->why == NO_FRAME ? NETIF_RSP_DROPPED : NETIF_RSP_ERROR;
        }
        for (; slot < staged->slots_end; slot++) {
            netif_tx_response_t *response = RING_GET_RESPONSE(&be.tx, prod);
            int32_t answer = be.answer[slot];
            response->id = answer < 0 ? 0 : answer;
            response->status = answer < 0 ? NETIF_RSP_NULL : status;
            prod++;
        }
    }
    be.tx.rsp_prod_pvt = prod;
    be.stats.from_slots += slot;
    be.stats.from_packets += packets;
    be.stats.from_bytes += bytes;
    be.stats.copied += copied;
    be.staged_in = be.answers = be.ops = be.pages = 0;
    return packets;
}

static NOINLINE unsigned be_poll(unsigned budget)
{
    uint64_t limit = (uint64_t)budget * UNIT, spent = be.debt;
    unsigned packets = 0;
    if (!be.live || be.broken)
        return 0;
    while (spent < limit) {
        RING_IDX prod = *(volatile RING_IDX *)&be.tx.sring->req_prod;
        if (!seen(prod, be.tx.req_cons, be.tx.rsp_prod_pvt, &be.tx_seen))
            goto broken;
        if (prod == be.tx.req_cons)
            break;
        if (!stage_in(limit, &spent))
            goto broken;
        submit_in();
        packets += finish_in();
        be.progress = 1;
        be.tell_tx |= publish(&be.tx_published, be.tx.rsp_prod_pvt, &be.tx.sring->rsp_prod,
                              &be.tx.sring->rsp_event);
    }
    be.debt = spent > limit ? spent - limit : 0;
    return packets;
broken:
    be.broken = 1;
    forget(0, 0);
    return 0;
}
