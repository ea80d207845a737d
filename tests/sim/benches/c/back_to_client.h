/* To the client: packets wait in a queue, and are copied into the pages that it posts. */

static inline unsigned available(void)
{
    return be.held + (be.rx_seen - be.rx.req_cons);
}

/* Whether so much more may wait. */
static inline int has_room(unsigned fragments, unsigned slots)
{
    if (be.wanted > 0 && slots > available()) {
        be.stats.stalled++;
        return 0;
    }
    if (be.count >= QUEUE_PACKETS || be.count + be.others + fragments > QUEUE_PAGES) {
        be.stats.queue_full++;
        return 0;
    }
    return 1;
}

static COLD void drop_packet(struct packet *packet)
{
    for (unsigned i = 0; i < packet->count; i++)
        drop_share(packet->fragment[i].page);
}

static NOINLINE int push_several(struct packet *packet, unsigned *len, unsigned *slots)
{
    unsigned fragments = 0;
    *len = 0;
    for (unsigned i = 0; i < packet->count; i++) {
        *len += packet->fragment[i].len;
        fragments += packet->fragment[i].len > 0;
    }
    *slots = (*len + PAGE - 1) / PAGE + (packet->meta.gso_type != 0);
    if (*len < 14 || *len > (be.sg ? 65535 : PAGE)) {
        be.stats.bad_length++;
        return 0;
    }
    if (!has_room(fragments, *slots))
        return 0;
    for (unsigned i = 1; i < packet->count; i++)
        be.other[(be.first_other + be.others++) % QUEUE_PAGES] = packet->fragment[i];
    return 1;
}

static inline int deliver(struct packet *packet)
{
    unsigned len, slots;
    if (!be.live || be.broken) {
        be.stats.unconnected++;
        drop_packet(packet);
        return 0;
    }
    if ((packet->meta.gso_type && !be.gso) ||
        (packet->meta.checksum == BLANK && !be.takes_blank)) {
        be.stats.offload++;
        drop_packet(packet);
        return 0;
    }
    if (packet->count == 1) {
        len = packet->fragment[0].len;
        slots = 1 + (packet->meta.gso_type != 0);
        if (len < 14) {
            be.stats.bad_length++;
            drop_packet(packet);
            return 0;
        }
        if (!has_room(1, slots)) {
            drop_packet(packet);
            return 0;
        }
    } else if (!push_several(packet, &len, &slots)) {
        drop_packet(packet);
        return 0;
    }
    struct waiting *next = &be.waiting[(be.first + be.count++) % QUEUE_PACKETS];
    next->first = packet->fragment[0];
    next->others = packet->count - 1;
    next->slots = slots;
    next->len = len;
    next->flags = packet->meta.checksum == UNKNOWN    ? 0
                  : packet->meta.checksum == COMPLETE ? NETRXF_data_validated
                                                      : NETRXF_data_validated | NETRXF_csum_blank;
    next->meta = packet->meta;
    return 1;
}

static NOINLINE int be_deliver(struct packet *packets, unsigned count)
{
    int delivered = 0;
    for (unsigned i = 0; i < count; i++)
        delivered += deliver(&packets[i]);
    return delivered;
}

static inline void copy_out(struct page *page, unsigned start, unsigned len, grant_ref_t gref,
                            unsigned offset)
{
    gnttab_copy_t *op = &be.op[be.ops++];
    op->source.u.gmfn = page->gfn;
    op->source.domid = DOMID_SELF;
    op->source.offset = start;
    op->dest.u.ref = gref;
    op->dest.domid = be.domain;
    op->dest.offset = offset;
    op->len = len;
    op->flags = GNTCOPY_dest_gref;
    op->status = GNTST_general_error;
}

static NOINLINE void write_out(const struct waiting *packet, unsigned slot)
{
    unsigned second = slot + 1 + (packet->meta.gso_type != 0), at = 0;
    struct fragment fragment = packet->first;
    for (unsigned others = packet->others;; others--) {
        be.page[be.pages++] = fragment.page;
        while (fragment.len > 0) {
            if (at == PAGE) {
                slot = second > slot + 1 ? second : slot + 1;
                at = 0;
            }
            unsigned len = fragment.len < PAGE - at ? fragment.len : PAGE - at;
            copy_out(fragment.page, fragment.start, len, be.posted[slot].gref, at);
            fragment.start += len;
            fragment.len -= len;
            at += len;
        }
        if (others == 0)
            break;
        fragment = be.other[be.first_other++ % QUEUE_PAGES];
        be.others--;
    }
}

/* Writes down what to copy; 1 if the client has not posted enough. */
static inline int stage_out(void)
{
    unsigned used = 0;
    if (be.wanted > 0 && available() >= be.wanted)
        be.wanted = 0;
    while (be.staged_out < BATCH && be.ops <= OPS - MOST_OPS) {
        struct waiting *packet = &be.waiting[be.first];
        unsigned slots = be.count > 0 ? packet->slots : be.wanted;
        if (slots == 0)
            return 0;
        while (be.held < used + slots) {
            if (be.rx.req_cons == be.rx_seen)
                return 1;
            RING_COPY_REQUEST(&be.rx, be.rx.req_cons, &be.posted[be.held]);
            be.held++;
            be.rx.req_cons++;
        }
        if (be.count == 0)
            return 0;
        be.first = (be.first + 1) % QUEUE_PACKETS;
        be.count--;
        if (packet->others == 0 && slots == 1) {
            be.page[be.pages++] = packet->first.page;
            copy_out(packet->first.page, packet->first.start, packet->first.len,
                     be.posted[used].gref, 0);
        } else {
            write_out(packet, used);
        }
        used += slots;
        struct staged_out *staged = &be.out[be.staged_out++];
        staged->slots = slots;
        staged->failed = 0;
        staged->ops_end = be.ops;
        staged->len = packet->len;
        staged->flags = packet->flags;
        staged->meta = packet->meta;
    }
    return 0;
}

static COLD void find_failed_out(void)
{
    unsigned op = 0;
    for (unsigned i = 0; i < be.staged_out; i++) {
        for (; op < be.out[i].ops_end; op++) {
            if (be.op[op].status != GNTST_okay) {
                be.out[i].failed = 1;
                be.stats.failures++;
            }
        }
    }
}

static NOINLINE void answer_several(const struct staged_out *staged, unsigned at, RING_IDX *prod)
{
    unsigned left = staged->len;
    for (unsigned slot = 0; slot < staged->slots; slot++) {
        netif_rx_response_t *response = RING_GET_RESPONSE(&be.rx, *prod);
        if (slot == 1 && staged->meta.gso_type && !staged->failed) {
            netif_extra_info_t extra = { .type = XEN_NETIF_EXTRA_TYPE_GSO };
            extra.u.gso.size = staged->meta.gso_size;
            extra.u.gso.type = staged->meta.gso_type;
            memcpy(response, &extra, sizeof extra);
            (*prod)++;
            continue;
        }
        unsigned now = left < PAGE ? left : PAGE;
        left -= now;
        response->id = be.posted[at + slot].id;
        response->offset = 0;
        response->flags = slot == 0 ? staged->flags : 0;
        if (slot == 0 && staged->meta.gso_type)
            response->flags |= NETRXF_extra_info;
        if (left > 0)
            response->flags |= NETRXF_more_data;
        response->status = now;
        if (staged->failed) {
            response->flags = 0;
            response->status = NETIF_RSP_ERROR;
        }
        (*prod)++;
    }
}

static inline void finish_out(void)
{
    for (unsigned i = 0; i < be.pages; i++)
        drop_share(be.page[i]);
    unsigned used = 0, failed = 0, packets = be.staged_out;
    uint64_t copied = 0, lost = 0;
    RING_IDX prod = be.rx.rsp_prod_pvt;
    for (unsigned i = 0; i < be.staged_out; i++) {
        struct staged_out *staged = &be.out[i];
        copied += staged->len;
        if (!staged->failed && staged->slots == 1) {
            netif_rx_response_t *response = RING_GET_RESPONSE(&be.rx, prod);
            response->id = be.posted[used].id;
            response->offset = 0;
            response->flags = staged->flags;
            response->status = staged->len;
            prod++;
        } else {
            answer_several(staged, used, &prod);
        }
        if (staged->failed) {
            failed++;
            lost += staged->len;
        }
        used += staged->slots;
    }
    be.rx.rsp_prod_pvt = prod;
    be.stats.copied += copied;
    be.stats.to_packets += packets - failed;
    be.stats.to_bytes += copied - lost;
    be.stats.copy_failed += failed;
    be.stats.to_slots += used;
    be.held -= used;
    memmove(be.posted, be.posted + used, be.held * sizeof be.posted[0]);
    be.staged_out = be.ops = be.pages = 0;
}

static COLD void check_stall(void)
{
    if (be.count == 0)
        return;
    if (be.stuck == 0)
        be.stuck = now();
    if (now() - be.stuck < PATIENCE)
        return;
    if (be.takes_notify) {
        be.wanted = available() + 1;
        be.stats.stalls++;
    }
    while (be.count > 0) {
        struct waiting *packet = &be.waiting[be.first];
        be.first = (be.first + 1) % QUEUE_PACKETS;
        be.count--;
        drop_share(packet->first.page);
        for (unsigned i = 0; i < packet->others; i++, be.others--)
            drop_share(be.other[be.first_other++ % QUEUE_PAGES].page);
        be.stats.stalled++;
    }
    be.stuck = 0;
}

static NOINLINE void be_flush(void)
{
    if (!be.live || be.broken)
        return;
    if (be.count > be.stats.high_water)
        be.stats.high_water = be.count;
    if (be.count > 0 || be.wanted > 0) {
        int progress = 0, full = 0;
        unsigned held = be.held;
        for (;;) {
            RING_IDX prod = *(volatile RING_IDX *)&be.rx.sring->req_prod;
            if (!seen(prod, be.rx.req_cons, be.rx.rsp_prod_pvt, &be.rx_seen)) {
                be.broken = 1;
                return;
            }
            full = stage_out();
            if (be.staged_out == 0)
                break;
            progress = 1;
            if (be.ops > 0)
                grant_copy(be.op, be.ops);
            be.stats.hypercalls++;
            be.stats.ops += be.ops;
            if (!all_okay())
                find_failed_out();
            finish_out();
            be.tell_rx |= publish(&be.rx_published, be.rx.rsp_prod_pvt, &be.rx.sring->rsp_prod,
                                  &be.rx.sring->rsp_event);
            if (be.count == 0) {
                full = 0;
                break;
            }
        }
        if (progress || be.held > held)
            be.stuck = 0;
        be.progress |= progress;
        if (full)
            check_stall();
    }
    if (be.tell_tx || be.tell_rx) {
        be.tell_tx = be.tell_rx = 0;
        be.stats.events++;
    }
}
