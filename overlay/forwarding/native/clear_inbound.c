/* From the wire to the tun in the clear, like overlay/forwarding/clear/inbound.py, and to the tap, like
 * overlay/forwarding/ethernet/clear.py: only the addresses of a packet show who sent it. */
#include "atomics.h"
#include "packet.h"

enum { ECT_1 = 1, CE = 3, ND_SOLICITATION = 135, ND_ADVERTISEMENT = 136 };
enum { ETHERTYPE_FRAME = 0x6558 };
enum { VXLAN_HAS_VNI = 0x08, GENEVE_VERSION = 0xC0, GENEVE_OPTIONS = 0x3F, GENEVE_REFUSED = 0xC0 };

/* Return where the frame in a payload begins, and in *identifier* that of its tunnel; 0 if there is no frame. */
static uint32_t find_frame(uint32_t layout, struct slice payload, uint32_t *identifier) {
    uint32_t start = VXLAN_SIZE, size = payload.size;
    if (size < VXLAN_SIZE + ETHERNET_SIZE)
        return 0;
    if (layout == LAYOUT_VXLAN) {
        if (!(read8(payload, 0) & VXLAN_HAS_VNI))
            return 0;
    } else {
        start = GENEVE_SIZE + (read8(payload, 0) & GENEVE_OPTIONS) * 4u;
        if (read8(payload, 0) & GENEVE_VERSION || read8(payload, 1) & GENEVE_REFUSED ||
            read16(payload, 2) != ETHERTYPE_FRAME || size < start + ETHERNET_SIZE)
            return 0;
    }
    *identifier = read32(payload, 4) >> 8;
    return start;
}

/* Return where the packet in a payload begins, and its length in *length*, if the payload is of *tunnel* and the packet
 * whole; UINT32_MAX otherwise (encap.ethernet: strip, admit). */
static uint32_t strip(const struct tunnel *tunnel, struct slice payload, uint32_t *length) {
    uint32_t start = 0, identifier = 0, version = 0;
    if (tunnel->layout == LAYOUT_VXLAN || tunnel->layout == LAYOUT_GENEVE) {
        uint32_t frame = find_frame(tunnel->layout, payload, &identifier);
        if (!frame || !tunnel->has_identifier || identifier != tunnel->identifier ||
            !slice_has_at(payload, frame, tunnel->own_mac, sizeof tunnel->own_mac))
            return UINT32_MAX;
        start = frame + ETHERNET_SIZE;
        uint32_t kind = read16(payload, start - 2);
        version = kind == ETHERTYPE_IPV4 ? 4 : kind == ETHERTYPE_IPV6 ? 6 : 0;
        if (!version)
            return UINT32_MAX;
    } else if (tunnel->layout != LAYOUT_BARE) {
        return UINT32_MAX;
    }
    struct slice packet = slice_from(payload, start);
    *length = packet_length(packet);
    if (!*length || (version && version_of(packet) != version))
        return UINT32_MAX;
    if (version == 6 && read8(packet, 6) == PROTOCOL_ICMPV6 && packet.size > IPV6_HEADER_SIZE &&
        (read8(packet, IPV6_HEADER_SIZE) == ND_SOLICITATION || read8(packet, IPV6_HEADER_SIZE) == ND_ADVERTISEMENT))
        return UINT32_MAX;
    return start;
}

/* Return the first of the peers at the place of *first* whose tunnel the payload claims to be of; NULL if there is
 * none. */
static struct peer *named_by(struct peer *first, struct slice payload) {
    uint32_t layout = first->tunnel->layout, identifier = 0;
    if (places_next(first) == NULL)
        return first;
    if (layout == LAYOUT_BARE)
        return places_named(first, false, 0);
    return find_frame(layout, payload, &identifier) ? places_named(first, true, identifier) : NULL;
}

/* Write the packet in the payload of *row*. */
static enum in_result deliver(struct lane *lane, struct peer *first, uint32_t row) {
    struct in *in = &lane->in;
    uint32_t at = row_at(in, row), size = row_size(in, row), length;
    uint32_t ecn = in->arrivals[in->current].ecn, mtu = (uint32_t)lane->state->mtu;
    uint8_t header[VIRTIO_SIZE];
    struct slice payload = row_of(in, row);
    struct peer *named = named_by(first, payload);
    uint32_t start = named == NULL ? UINT32_MAX : strip(named->tunnel, payload, &length);
    if (start == UINT32_MAX)
        return hand_back(in, IN_CLEAR, NULL, at, size, 1);
    struct slice packet = slice_part(payload, start, length);
    struct peer *peer = places_sender(lane, named, packet);
    if (peer == NULL || (ecn && !take_outer_ecn(packet, ecn)) ||
        !virtio_for(peer->unsealed, packet, mtu, slice_of(header, sizeof header)))
        return hand_back(in, IN_CLEAR, NULL, at, size, 1);
    counts_of(lane, peer)->rx_packets++;
    counts_of(lane, peer)->rx_bytes += size;
    set_time(&peer->contact->last_received, in->now);
    uint32_t path = (uint32_t)peer->path->mtu;
    clamp_syn(packet, path < mtu ? path : mtu, header[0]);
    struct iovec parts[2] = {{header, VIRTIO_SIZE}, iovec_of(packet)};
    write_tun(lane, peer, parts, 2);
    return IN_DONE;
}

/* Write the super-packet of the *count* rows from *first* on. */
static enum in_result deliver_run(struct lane *lane, struct peer *there, uint32_t first, uint32_t count) {
    struct in *in = &lane->in;
    uint32_t at = row_at(in, first), end = rows_end(in), bytes = count * in->stride;
    struct slice payload = row_of(in, first);
    struct peer *named = named_by(there, payload), *peer = NULL;
    if (named != NULL)
        peer = places_sender(lane, named, slice_from(payload, in->before));
    if (peer == NULL)
        return hand_back(in, IN_CLEAR_RUN, NULL, first, end, count);
    counts_of(lane, peer)->rx_packets += count;
    counts_of(lane, peer)->rx_bytes += bytes < end - at ? bytes : end - at;
    set_time(&peer->contact->last_received, in->now);
    write_run(lane, peer, first, count);
    return IN_DONE;
}

/* Frames of a tap; ethernet_outbound.c says which are ordinary */

struct found { /* a frame in a payload, and the peer whose tunnel it came through; without a peer it is for Python */
    struct peer *peer;
    uint32_t start, link; /* where the frame begins, and the bytes before its packet */
};

/* Find the frame in a payload that came from the place of *first* (_find, ip_start). */
static struct found find_sent(struct peer *first, struct slice payload) {
    struct found found = {0};
    uint32_t layout = first->tunnel->layout, identifier = 0;
    if (layout == LAYOUT_VXLAN || layout == LAYOUT_GENEVE)
        found.start = find_frame(layout, payload, &identifier);
    if (found.start)
        found.link = link_of(slice_from(payload, found.start));
    if (found.link)
        found.peer = places_named(first, true, identifier);
    return found;
}

static const struct known_station *sender_of(const struct in *in, const struct state *state, const struct found *found,
                                             struct slice payload) {
    if (found->peer == NULL)
        return NULL;
    return stations_find(state, source_mac(slice_from(payload, found->start)), found->peer, in->now);
}

/* Write the virtio header of a frame's packet at *header*; false if the frame is for Python to refuse (_virtio). */
static bool virtio_for_frame(struct peer *peer, struct slice packet, uint32_t mtu, uint32_t link, struct slice header) {
    slice_clear(header);
    if (packet_length(packet) != packet.size)
        return true; /* a sender that pads or truncates a frame has finished the packet before */
    if (!virtio_for(peer->unsealed, packet, mtu - FRAME_HEADER_SIZE - ETHERNET_SIZE, header))
        return false;
    if (read8(header, 0)) {
        write16_le(header, 2, link + read16_le(header, 2));
        write16_le(header, 6, link + read16_le(header, 6));
    }
    return true;
}

/* Write the frame in the payload of *row* (_take_one). */
static enum in_result deliver_frame(struct lane *lane, struct peer *first, uint32_t row) {
    struct in *in = &lane->in;
    uint32_t at = row_at(in, row), size = row_size(in, row);
    uint32_t ecn = in->arrivals[in->current].ecn, mtu = (uint32_t)lane->state->mtu;
    uint8_t header[VIRTIO_SIZE];
    struct slice payload = row_of(in, row);
    struct found found = find_sent(first, payload);
    const struct known_station *sender = sender_of(in, lane->state, &found, payload);
    if (sender == NULL)
        return hand_back(in, IN_CLEAR, NULL, at, size, 1);
    struct peer *peer = found.peer;
    struct slice frame = slice_from(payload, found.start), packet = slice_from(frame, found.link);
    if (!virtio_for_frame(peer, packet, mtu, found.link, slice_of(header, sizeof header)) ||
        (ecn && !take_outer_ecn(packet, ecn)))
        return hand_back(in, IN_CLEAR, NULL, at, size, 1);
    station_seen(sender, in->now);
    counts_of(lane, peer)->rx_packets++;
    counts_of(lane, peer)->rx_bytes += size;
    set_time(&peer->contact->last_received, in->now);
    uint32_t path = (uint32_t)peer->path->mtu;
    clamp_syn(packet, (path < mtu ? path : mtu) - FRAME_HEADER_SIZE - found.link, header[0]);
    struct iovec parts[2] = {{header, VIRTIO_SIZE}, iovec_of(frame)};
    write_tun(lane, peer, parts, 2);
    return IN_DONE;
}

/* Write the super-frame of the *count* rows from *first* on. */
static enum in_result deliver_frames(struct lane *lane, struct peer *there, uint32_t first, uint32_t count) {
    struct in *in = &lane->in;
    uint32_t at = row_at(in, first), end = rows_end(in), bytes = count * in->stride;
    struct found found = find_sent(there, row_of(in, first));
    const struct known_station *sender = sender_of(in, lane->state, &found, row_of(in, first));
    if (sender == NULL)
        return hand_back(in, IN_CLEAR_RUN, NULL, first, end, count);
    station_seen(sender, in->now);
    counts_of(lane, found.peer)->rx_packets += count;
    counts_of(lane, found.peer)->rx_bytes += bytes < end - at ? bytes : end - at;
    set_time(&found.peer->contact->last_received, in->now);
    write_run(lane, found.peer, first, count);
    return IN_DONE;
}

/* Gathered rows */

/* Return the first of the peers at the address that the gathered rows come from; NULL if there is none. */
static struct peer *find_there(const struct lane *lane) {
    const struct in *in = &lane->in;
    return places_find(lane->state, in->udp, &in->arrivals[in->current].source);
}

/* Deliver rows from `next` on; anything but IN_DONE is for Python, and the next call continues after it. */
enum in_result clear_deliver(struct lane *lane) {
    struct in *in = &lane->in;
    struct peer *peer = find_there(lane);
    while (peer != NULL && in->next < in->rows) {
        uint32_t row = in->next, count = in->is_joined ? in->runs[row] : 1;
        in->next += count;
        enum in_result result;
        if (lane->state->carries_frames)
            result = count > 1 ? deliver_frames(lane, peer, row, count) : deliver_frame(lane, peer, row);
        else
            result = count > 1 ? deliver_run(lane, peer, row, count) : deliver(lane, peer, row);
        if (result != IN_DONE)
            return result;
    }
    in->work = WORK_NONE;
    return IN_DONE;
}

/* Make `before` reach up to the packets of the rows if they are of one tunnel, or, with a tap, their frames of one
 * link; otherwise return false (_same_before; _joinable). */
static bool find_before(struct in *in, struct peer *there, bool is_tap) {
    uint32_t length;
    if (is_tap) {
        struct found found = find_sent(there, row_of(in, 0));
        in->before = found.start + found.link;
        in->link = found.link;
        return found.peer != NULL && in->last >= in->before;
    }
    if (!there->tunnel->prefix_size)
        return true;
    struct peer *named = named_by(there, row_of(in, 0));
    in->before = named == NULL ? UINT32_MAX : strip(named->tunnel, row_of(in, 0), &length);
    return in->before != UINT32_MAX && !(in->before & 1) && in->last > in->before;
}

/* Return whether the bytes before the packet are the same in each row. */
static bool are_same_before(struct in *in, struct peer *there, bool is_tap) {
    if (!find_before(in, there, is_tap))
        return false;
    for (uint32_t row = 1; row < in->rows; row++)
        if (!slice_same_at(row_of(in, 0), row_of(in, row), 0, in->before))
            return false;
    return true;
}

/* Handle the gathered rows. */
enum in_result clear_take(struct lane *lane) {
    struct in *in = &lane->in;
    struct peer *peer = find_there(lane);
    if (peer == NULL) {
        record_packet(lane, NULL, DROP_OUTER_SOURCE, in->rows, DATAGRAM, row_of(in, 0));
        return IN_DONE;
    }
    if (in->rows > MAXIMUM_ROWS || peer->tunnel == NULL || peer->tunnel->layout != in->udp->layout)
        return hand_back(in, IN_RECEIVED, NULL, 0, in->gathered, in->rows);
    uint32_t ecn = in->arrivals[in->current].ecn, end = rows_end(in);
    in->before = in->tag = in->link = 0;
    in->next = 0;
    in->work = WORK_CLEAR;
    /* A congestion mark changes each packet separately, and so do different bytes before them. */
    in->is_joined = in->rows > 1 && ecn != CE && ecn != ECT_1 && are_same_before(in, peer, lane->state->carries_frames);
    if (in->is_joined) {
        slice_clear(slice_part(in->buffer, end, in->rows * in->stride - end));
        in->is_joined = join_rows(in, lane->state->joins_udp);
    }
    return clear_deliver(lane);
}
