/* Bulk units from the wire to the tun, like overlay/forwarding/bulk/inbound.py: reassemble, open, check, write. */
#include "atomics.h"
#include "packet.h"

enum { CE = 3, FLAG_CWR = 0x80 };

struct unit_flow {
    struct flow flow;
    uint32_t gso_type, segment;
    uint32_t link; /* bytes of the Ethernet header after the packet, with a tap */
    const struct known_station *sender; /* the station that sent it; NULL with a tun */
};

/* Return whether every claim of an opened unit, from its metadata to its link header, holds (bulk.units: read_unit). */
static bool read_unit(struct slice unit, uint32_t most, struct unit_flow *read) {
    struct slice packet = slice_from(unit, META_SIZE);
    uint32_t length = packet.size, gso_type = read8(unit, 0), segment = read16_le(unit, 2);
    if (length < 40 || length > MAXIMUM_IP || !flow_of(packet, &read->flow))
        return false;
    const struct flow *flow = &read->flow;
    uint32_t wanted = gso_type_of(flow);
    bool is_tcp = flow->protocol == PROTOCOL_TCP;
    if (read8(unit, 1) != read->link || (gso_type != wanted && (gso_type != (wanted | GSO_ECN) || !is_tcp)))
        return false;
    if (segment < MINIMUM_SEGMENT || most < flow->size || segment > most - flow->size)
        return false;
    uint32_t told = flow->version == 4 ? read16(packet, 2) : IPV6_HEADER_SIZE + read16(packet, 4);
    if (told != length || length - flow->size <= segment)
        return false;
    if (!is_tcp && read16(packet, flow->l4 + 4) != length - flow->l4)
        return false;
    read->gso_type = is_tcp && read8(packet, flow->l4 + 13) & FLAG_CWR ? wanted | GSO_ECN : wanted;
    read->segment = segment;
    return true;
}

/* Return whether the opened unit after LEAD bytes of *whole* is ordinary: its claims hold, and its source is the
 * peer's. */
static bool is_ordinary(const struct lane *lane, const struct keypair *keypair, struct slice whole,
                        struct unit_flow *read) {
    const struct state *state = lane->state;
    struct slice unit = slice_from(whole, LEAD);
    read->link = state->carries_frames ? read8(unit, 1) : 0;
    read->sender = NULL;
    if (state->carries_frames && (read->link < ETHERNET_SIZE || unit.size < META_SIZE + read->link))
        return false;
    uint32_t size = unit.size - read->link;
    if (!read_unit(slice_part(unit, 0, size), (uint32_t)keypair->bulk->told_packet, read) ||
        (read->flow.protocol == PROTOCOL_UDP && !state->joins_udp))
        return false;
    if (!state->carries_frames)
        return is_from(lane, keypair->peer, slice_part(unit, META_SIZE, size - META_SIZE));
    struct slice link = slice_from(unit, size);
    read->sender = stations_find(state, source_mac(link), keypair->peer, lane->in.now);
    return read->sender != NULL && is_link(link, read->flow.version);
}

/* Write the super-packet of an opened unit after LEAD bytes of *whole*. */
static enum in_result deliver_unit(struct lane *lane, struct keypair *keypair, struct slice whole, uint32_t ecn) {
    struct in *in = &lane->in;
    struct peer *peer = keypair->peer;
    struct unit_flow read;
    if (!is_ordinary(lane, keypair, whole, &read) || (ecn && !take_outer_ecn(slice_from(whole, VIRTIO_SIZE), ecn))) {
        in->back_ecn = ecn;
        if (whole.bytes != in->unit.bytes)
            slice_copy(in->unit, 0, whole);
        return hand_back(in, IN_UNIT, keypair, 0, whole.size, 1);
    }
    const struct flow *flow = &read.flow;
    uint32_t link = read.link, length = whole.size - link - VIRTIO_SIZE, payload = length - flow->size;
    uint32_t offset = flow->protocol == PROTOCOL_TCP ? 16 : 6;
    struct slice header = slice_part(whole, 0, VIRTIO_SIZE), packet = slice_part(whole, VIRTIO_SIZE, length);
    write16(packet, flow->l4 + offset, fold(pseudo_sum(packet, flow, length - flow->l4)));
    write8(header, 0, NEEDS_CSUM);
    write8(header, 1, read.gso_type);
    write16_le(header, 2, link + flow->size);
    write16_le(header, 4, read.segment);
    write16_le(header, 6, link + flow->l4);
    write16_le(header, 8, offset);
    data_received(in, peer);
    counts_of(lane, peer)->rx_packets += (payload + read.segment - 1) / read.segment;
    if (read.sender != NULL)
        station_seen(read.sender, in->now);
    struct slice frame_header = slice_part(whole, whole.size - link, link);
    struct iovec parts[3] = {iovec_of(header), iovec_of(frame_header), iovec_of(packet)}, all = iovec_of(whole);
    write_tun(lane, peer, link ? parts : &all, link ? 3 : 1);
    return IN_DONE;
}

static void unit_came(struct bulk *bulk, uint64_t counter, uint32_t fragments, double now) {
    if (counter >= bulk->newest) {
        bulk->newest = counter + 1;
        bulk->newest_at = now;
    }
    bulk->units++;
    bulk->datagrams += fragments;
}

static bool is_new_unit(struct keypair *keypair, uint64_t counter) {
    pthread_mutex_lock(&keypair->receiving);
    bool is_new = window_check(keypair->bulk->window, counter);
    pthread_mutex_unlock(&keypair->receiving);
    return is_new;
}

/* Open the sealed unit after LEAD bytes of *whole*, and deliver it; it came as *size* bytes in *count* datagrams. */
static enum in_result open_unit(struct lane *lane, struct keypair *keypair, uint32_t cipher, uint64_t counter,
                                uint32_t count, struct slice whole, uint32_t size, uint32_t ecn) {
    struct in *in = &lane->in;
    struct peer *peer = keypair->peer;
    struct bulk *bulk = keypair->bulk;
    if (whole.size < LEAD + META_SIZE + TAG_SIZE) {
        record_drop(lane, peer, DROP_UNIT_SHORT, 1);
        return IN_DONE;
    }
    enum reason refused = DROP_REASONS;
    pthread_mutex_lock(&keypair->receiving);
    if (!aead_open(&bulk->opens[cipher - 1], counter, slice_from(whole, LEAD)))
        refused = DROP_UNIT_AUTH;
    else if (!window_accept(bulk->window, counter))
        refused = DROP_REPLAY;
    else
        unit_came(bulk, counter, count, in->now);
    pthread_mutex_unlock(&keypair->receiving);
    if (refused != DROP_REASONS) {
        record_drop(lane, peer, refused, 1);
        return IN_DONE;
    }
    counts_of(lane, peer)->rx_units++;
    heard(lane, peer, size);
    if (peer->contact->reporting != (keypair->session != NULL ? keypair->session : keypair))
        in->edges |= EDGE_REPORT;
    return deliver_unit(lane, keypair, slice_part(whole, 0, whole.size - TAG_SIZE), ecn);
}

/* Handle *count* fragments of one unit, in consecutive rows from *row* on. */
static enum in_result take_run(struct lane *lane, uint32_t row, uint32_t count) {
    struct in *in = &lane->in;
    struct keypair *keypair = in->keypair;
    struct peer *peer = keypair->peer;
    struct bulk *bulk = keypair->bulk;
    const struct arrival *arrival = &in->arrivals[in->current];
    struct slice rows = slice_from(slice_part(in->buffer, 0, rows_end(in)), row_at(in, row));
    uint32_t number = read8(rows, 1), total = read8(rows, 2), cipher = read8(rows, 3);
    uint64_t counter = read64_le(rows, 8);
    uint32_t last = (row + count == in->rows ? in->last : in->stride) - FRAGMENT_HEADER_SIZE;
    uint32_t width = count > 1 ? in->stride - FRAGMENT_HEADER_SIZE : last;
    enum reason refused = DROP_REASONS;
    bool is_whole = false;
    struct partial *partial = NULL;
    if (number + count > total)
        refused = DROP_FRAGMENT_HEADER;
    else if (!bulk->has_said_hello || cipher < 1 || cipher > 2 ||
             bulk->opens[cipher - 1].context == NULL)
        refused = DROP_UNIT_UNEXPECTED;
    else if (!is_new_unit(keypair, counter))
        refused = DROP_REPLAY;
    else if ((partial = reassembly_place(lane, keypair, counter, total, cipher, arrival, in->now, true)) == NULL)
        refused = DROP_FRAGMENT_HEADER;
    if (refused == DROP_REASONS) {
        partial->is_marked |= arrival->ecn == CE;
        if (!reassembly_put(partial, number, slice_from(rows, FRAGMENT_HEADER_SIZE), count, in->stride, width, last,
                            &is_whole))
            refused = DROP_FRAGMENT_SIZE;
    }
    if (refused != DROP_REASONS) {
        record_packet(lane, peer, refused, count, DATAGRAM, slice_part(rows, 0, last + FRAGMENT_HEADER_SIZE));
        return IN_DONE;
    }
    if (!is_whole)
        return IN_DONE;
    uint32_t end, ecn = partial->is_marked ? CE : arrival->ecn;
    bool is_good = reassembly_finish(partial, &end);
    reassembly_forget(&in->reassembly, partial); /* its buffer stays as it is until the next fragment */
    if (!is_good) {
        record_drop(lane, peer, DROP_FRAGMENT_SIZE, 1);
        return IN_DONE;
    }
    uint32_t size = end - LEAD + total * FRAGMENT_HEADER_SIZE;
    return open_unit(lane, keypair, cipher, counter, total, slice_part(partial->buffer, 0, end), size, ecn);
}

/* Return the end of the run of consecutive fragments of one unit that begins with *row*. */
static uint32_t end_of_run(const struct in *in, uint32_t row) {
    for (; row + 1 < in->rows; row++) {
        struct slice each = row_of(in, row), next = row_of(in, row + 1);
        if (read32_le(next, 0) - read32_le(each, 0) != 1 << 8 || !slice_same_at(each, next, 4, 12))
            break;
    }
    return row + 1;
}

enum in_result take_fragments(struct lane *lane) {
    struct in *in = &lane->in;
    while (in->next < in->rows) {
        uint32_t row = in->next, stop = end_of_run(in, row);
        in->next = stop;
        in->edges = 0;
        enum in_result result = take_run(lane, row, stop - row);
        if (result != IN_DONE || in->edges) {
            in->back_edges = in->edges;
            return result != IN_DONE ? result : hand_back(in, IN_EDGE, in->keypair, 0, 0, 0);
        }
    }
    in->work = WORK_NONE;
    return IN_DONE;
}
