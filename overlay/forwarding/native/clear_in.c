/* From the wire to the tun in the clear, as overlay/forwarding/clear/inbound.py has it, and to the tap, as
 * overlay/forwarding/ethernet/clear.py has it: nothing tells who made a packet but the addresses that it came with. */
#include "bytes.h"
#include "native.h"
#include "packet.h"
#include "shared.h"

enum { ECT_1 = 1, CE = 3, ND_SOLICITATION = 135, ND_ADVERTISEMENT = 136 };
enum { ETHERTYPE_FRAME = 0x6558 };
enum { VXLAN_HAS_VNI = 0x08, GENEVE_VERSION = 0xC0, GENEVE_OPTIONS = 0x3F, GENEVE_REFUSED = 0xC0 };

/* Return where the frame in a payload begins, of whose tunnel *identifier* is; 0 where there is none. */
static uint32_t find_frame(uint32_t layout, const uint8_t *payload, uint32_t size, uint32_t *identifier) {
    uint32_t start = VXLAN_SIZE;
    if (size < VXLAN_SIZE + ETHERNET_SIZE)
        return 0;
    if (layout == LAYOUT_VXLAN) {
        if (!(payload[0] & VXLAN_HAS_VNI))
            return 0;
    } else {
        start = GENEVE_SIZE + (payload[0] & GENEVE_OPTIONS) * 4u;
        if (payload[0] & GENEVE_VERSION || payload[1] & GENEVE_REFUSED || get16(payload + 2) != ETHERTYPE_FRAME ||
            size < start + ETHERNET_SIZE)
            return 0;
    }
    *identifier = get32(payload + 4) >> 8;
    return start;
}

/* Return where the packet in a payload begins, if the payload is of *tunnel* and *length* that of a whole packet;
 * UINT32_MAX for anything else (encap.ethernet: strip, admit). */
static uint32_t strip(const struct tunnel *tunnel, const uint8_t *payload, uint32_t size, uint32_t *length) {
    uint32_t start = 0, identifier = 0, version = 0;
    if (tunnel->layout == LAYOUT_VXLAN || tunnel->layout == LAYOUT_GENEVE) {
        uint32_t frame = find_frame(tunnel->layout, payload, size, &identifier);
        if (!frame || !tunnel->has_identifier || identifier != tunnel->identifier ||
            memcmp(payload + frame, tunnel->own_mac, sizeof tunnel->own_mac) != 0)
            return UINT32_MAX;
        start = frame + ETHERNET_SIZE;
        uint32_t kind = get16(payload + start - 2);
        version = kind == ETHERTYPE_IPV4 ? 4 : kind == ETHERTYPE_IPV6 ? 6 : 0;
        if (!version)
            return UINT32_MAX;
    } else if (tunnel->layout != LAYOUT_BARE) {
        return UINT32_MAX;
    }
    const uint8_t *packet = payload + start;
    *length = packet_length(packet, size - start);
    if (!*length || (version && packet[0] >> 4 != version))
        return UINT32_MAX;
    if (version == 6 && packet[6] == PROTOCOL_ICMPV6 && size - start > IPV6_HEADER_SIZE &&
        (packet[IPV6_HEADER_SIZE] == ND_SOLICITATION || packet[IPV6_HEADER_SIZE] == ND_ADVERTISEMENT))
        return UINT32_MAX;
    return start;
}

/* Return the first of the peers at the place of *first* whose tunnel a payload says that it is of; NULL for none. */
static struct peer *named_by(struct peer *first, const uint8_t *payload, uint32_t size) {
    uint32_t layout = first->tunnel->layout, identifier = 0;
    if (places_next(first) == NULL)
        return first;
    if (layout == LAYOUT_BARE)
        return places_named(first, false, 0);
    return find_frame(layout, payload, size, &identifier) ? places_named(first, true, identifier) : NULL;
}

/* Write the packet in the payload of *row*. */
static enum in_result deliver(struct lane *lane, struct peer *first, uint32_t row) {
    struct in *in = &lane->in;
    uint32_t at = row * in->stride, size = row == in->rows - 1 ? in->last : in->stride, length;
    uint32_t ecn = in->arrivals[in->current].ecn, mtu = (uint32_t)lane->state->mtu;
    uint8_t *payload = in->buffer + at, header[VIRTIO_SIZE];
    struct peer *named = named_by(first, payload, size);
    uint32_t start = named == NULL ? UINT32_MAX : strip(named->tunnel, payload, size, &length);
    if (start == UINT32_MAX)
        return hand_back(in, IN_CLEAR, NULL, at, size, 1);
    uint8_t *packet = payload + start;
    struct peer *peer = places_sender(lane, named, packet, length);
    if (peer == NULL || (ecn && !take_outer_ecn(packet, ecn)) ||
        !virtio_for(peer->unsealed, packet, length, mtu, header))
        return hand_back(in, IN_CLEAR, NULL, at, size, 1);
    counts_of(lane, peer)->rx_packets++;
    counts_of(lane, peer)->rx_bytes += size;
    set_time(&peer->contact->last_received, in->now);
    uint32_t path = (uint32_t)peer->path->mtu;
    clamp_syn(packet, length, path < mtu ? path : mtu, header[0]);
    struct iovec parts[2] = {{header, VIRTIO_SIZE}, {packet, length}};
    write_tun(lane, peer, parts, 2);
    return IN_DONE;
}

/* Write the super-packet that *count* rows from *first* on make. */
static enum in_result deliver_run(struct lane *lane, struct peer *there, uint32_t first, uint32_t count) {
    struct in *in = &lane->in;
    uint32_t at = first * in->stride, end = (in->rows - 1) * in->stride + in->last, bytes = count * in->stride;
    uint8_t *payload = in->buffer + at;
    struct peer *named = named_by(there, payload, in->stride), *peer = NULL;
    if (named != NULL)
        peer = places_sender(lane, named, payload + in->before, in->stride - in->before);
    if (peer == NULL)
        return hand_back(in, IN_CLEAR_RUN, NULL, first, end, count);
    counts_of(lane, peer)->rx_packets += count;
    counts_of(lane, peer)->rx_bytes += bytes < end - at ? bytes : end - at;
    set_time(&peer->contact->last_received, in->now);
    write_run(lane, peer, first, count);
    return IN_DONE;
}

/* Frames of a tap; frames_out.c says which are ordinary */

struct found { /* a frame in a payload, and the peer whose tunnel it came by; without a peer it is for Python */
    struct peer *peer;
    uint32_t start, link; /* where the frame begins, and the bytes before its packet */
};

/* Find the frame in a payload from the place of *first* (_find, ip_start). */
static struct found find_sent(struct peer *first, const uint8_t *payload, uint32_t size) {
    struct found found = {0};
    uint32_t layout = first->tunnel->layout, identifier = 0;
    if (layout == LAYOUT_VXLAN || layout == LAYOUT_GENEVE)
        found.start = find_frame(layout, payload, size, &identifier);
    if (found.start)
        found.link = link_of(payload + found.start, size - found.start);
    if (found.link)
        found.peer = places_named(first, true, identifier);
    return found;
}

static const struct known_station *sender_of(const struct in *in, const struct state *state, const struct found *found,
                                             const uint8_t *payload) {
    if (found->peer == NULL)
        return NULL;
    return stations_find(state, payload + found->start + 6, found->peer, in->now);
}

/* Write the virtio header of a frame's packet at *header*; false where the frame is for Python to refuse (_virtio). */
static bool virtio_for_frame(struct peer *peer, const uint8_t *packet, uint32_t length, uint32_t mtu, uint32_t link,
                             uint8_t *header) {
    memset(header, 0, VIRTIO_SIZE);
    if (packet_length(packet, length) != length)
        return true; /* who pads a frame, or cuts it, has finished the packet before */
    if (!virtio_for(peer->unsealed, packet, length, mtu - FRAME_HEADER_SIZE - ETHERNET_SIZE, header))
        return false;
    if (header[0]) {
        put16_le(header + 2, link + get16_le(header + 2));
        put16_le(header + 6, link + get16_le(header + 6));
    }
    return true;
}

/* Write the frame in the payload of *row* (_take_one). */
static enum in_result deliver_frame(struct lane *lane, struct peer *first, uint32_t row) {
    struct in *in = &lane->in;
    uint32_t at = row * in->stride, size = row == in->rows - 1 ? in->last : in->stride;
    uint32_t ecn = in->arrivals[in->current].ecn, mtu = (uint32_t)lane->state->mtu;
    uint8_t *payload = in->buffer + at, header[VIRTIO_SIZE];
    struct found found = find_sent(first, payload, size);
    const struct known_station *sender = sender_of(in, lane->state, &found, payload);
    if (sender == NULL)
        return hand_back(in, IN_CLEAR, NULL, at, size, 1);
    struct peer *peer = found.peer;
    uint8_t *packet = payload + found.start + found.link;
    uint32_t length = size - found.start - found.link;
    if (!virtio_for_frame(peer, packet, length, mtu, found.link, header) || (ecn && !take_outer_ecn(packet, ecn)))
        return hand_back(in, IN_CLEAR, NULL, at, size, 1);
    station_seen(sender, in->now);
    counts_of(lane, peer)->rx_packets++;
    counts_of(lane, peer)->rx_bytes += size;
    set_time(&peer->contact->last_received, in->now);
    uint32_t path = (uint32_t)peer->path->mtu;
    clamp_syn(packet, length, (path < mtu ? path : mtu) - FRAME_HEADER_SIZE - found.link, header[0]);
    struct iovec parts[2] = {{header, VIRTIO_SIZE}, {payload + found.start, size - found.start}};
    write_tun(lane, peer, parts, 2);
    return IN_DONE;
}

/* Write the super-frame that *count* rows from *first* on make. */
static enum in_result deliver_frames(struct lane *lane, struct peer *there, uint32_t first, uint32_t count) {
    struct in *in = &lane->in;
    uint32_t at = first * in->stride, end = (in->rows - 1) * in->stride + in->last, bytes = count * in->stride;
    struct found found = find_sent(there, in->buffer + at, in->stride);
    const struct known_station *sender = sender_of(in, lane->state, &found, in->buffer + at);
    if (sender == NULL)
        return hand_back(in, IN_CLEAR_RUN, NULL, first, end, count);
    station_seen(sender, in->now);
    counts_of(lane, found.peer)->rx_packets += count;
    counts_of(lane, found.peer)->rx_bytes += bytes < end - at ? bytes : end - at;
    set_time(&found.peer->contact->last_received, in->now);
    write_run(lane, found.peer, first, count);
    return IN_DONE;
}

/* What is gathered */

/* Return the first of the peers that are where what is gathered comes from; NULL for nobody. */
static struct peer *find_there(const struct lane *lane) {
    const struct in *in = &lane->in;
    return places_find(lane->state, in->udp, &in->arrivals[in->current].source);
}

/* Deliver rows from `next` on; anything but IN_DONE is for Python, and the next call goes on behind it. */
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

/* Have `before` reach up to the packets of the rows if they are of one tunnel, or of a tap their frames of one link; else
 * return false (_same_before; _joinable). */
static bool find_before(struct in *in, struct peer *there, bool is_tap) {
    uint32_t length;
    if (is_tap) {
        struct found found = find_sent(there, in->buffer, in->stride);
        in->before = found.start + found.link;
        in->link = found.link;
        return found.peer != NULL && in->last >= in->before;
    }
    if (!there->tunnel->prefix_size)
        return true;
    struct peer *named = named_by(there, in->buffer, in->stride);
    in->before = named == NULL ? UINT32_MAX : strip(named->tunnel, in->buffer, in->stride, &length);
    return in->before != UINT32_MAX && !(in->before & 1) && in->last > in->before;
}

/* Return whether the same stands before the packet of each row. */
static bool are_same_before(struct in *in, struct peer *there, bool is_tap) {
    if (!find_before(in, there, is_tap))
        return false;
    for (uint32_t row = 1; row < in->rows; row++)
        if (memcmp(in->buffer, in->buffer + (size_t)row * in->stride, in->before) != 0)
            return false;
    return true;
}

/* Take what is gathered. */
enum in_result clear_take(struct lane *lane) {
    struct in *in = &lane->in;
    struct peer *peer = find_there(lane);
    if (peer == NULL) {
        note_packet(lane, NULL, DROP_OUTER_SOURCE, in->rows, DATAGRAM, in->buffer, in->rows > 1 ? in->stride : in->last);
        return IN_DONE;
    }
    if (in->rows > MAXIMUM_ROWS || peer->tunnel == NULL || peer->tunnel->layout != in->udp->layout)
        return hand_back(in, IN_RECEIVED, NULL, 0, in->gathered, in->rows);
    uint32_t ecn = in->arrivals[in->current].ecn, end = (in->rows - 1) * in->stride + in->last;
    in->before = in->tag = in->link = 0;
    in->next = 0;
    in->work = WORK_CLEAR;
    /* A congestion mark changes packets one by one, and so does what is not the same before each. */
    in->is_joined = in->rows > 1 && ecn != CE && ecn != ECT_1 && are_same_before(in, peer, lane->state->carries_frames);
    if (in->is_joined) {
        memset(in->buffer + end, 0, in->rows * in->stride - end);
        in->is_joined = join_rows(in, lane->state->joins_udp);
    }
    return clear_deliver(lane);
}
