/* From raw sockets to the tun, like overlay/forwarding/clear/raw.py: packets right after an outer IP header, or after
 * that and a GRE header.  One call gives many, as rows of one buffer; those of one sender and one tunnel are joined. */
#include "atomics.h"
#include "packet.h"

#include <errno.h>
#include <netinet/in.h>

enum { ECT_1 = 1, CE = 3 };
enum { GRE_CHECKSUM = 0x8000, GRE_KEY = 0x2000, GRE_SEQUENCE = 0x1000, GRE_REFUSED = 0x4C00, GRE_VERSION = 7 }; /* encap.gre */
#define SEQUENCE_LIFE 3.0 /* clear.raw */
enum { LARGEST_ROW = 9216, FIRST_ROW = 1500, LEAST_ROW = 128, DRAIN_BYTES = 512 * 1024 };
enum { ROWS_BYTES = RAW_MESSAGES * LARGEST_ROW + LARGEST_ROW };

size_t raw_bytes(void) { return ROWS_BYTES + (size_t)RAW_MESSAGES * RAW_REST; }

static uint32_t rest_at(uint32_t row) { return ROWS_BYTES + row * RAW_REST; }

/* Return the room for a packet, or for its beginning; the rest of the packet goes elsewhere if it does not fit. */
static struct slice room_of(const struct raw *raw, uint32_t row) {
    return slice_part(raw->rows, row * raw->stride, raw->stride);
}

/* Return the *size* bytes of the packet of *row*; if they are more than a row has, the beginning is copied before the
 * rest.
 *
 * There is room: after the rows for LARGEST_ROW bytes, and otherwise after the previous rest, because a packet is not
 * longer than RAW_REST; and the packets before it are done. */
static struct slice whole_of(const struct raw *raw, uint32_t row, uint32_t size) {
    if (raw->fits)
        return slice_part(room_of(raw, row), 0, size);
    struct slice whole = slice_part(raw->rows, rest_at(row) - raw->stride, size);
    slice_copy(whole, 0, room_of(raw, row));
    return whole;
}

/* Receive; return how many packets came, or -1 like recvmmsg(). */
static int receive(struct lane *lane, struct udp *udp) {
    struct raw *raw = &lane->raw;
    if (!raw->stride)
        raw->stride = FIRST_ROW;
    memset(raw->names, 0, sizeof raw->names);
    memset(raw->controls, 0, sizeof raw->controls);
    for (uint32_t row = 0; row < RAW_MESSAGES; row++) {
        raw->parts[row][0] = iovec_of(room_of(raw, row));
        raw->parts[row][1] = iovec_of(slice_part(raw->rows, rest_at(row), RAW_REST));
        raw->messages[row].msg_hdr = (struct msghdr){
            .msg_name = &raw->names[row],
            .msg_namelen = sizeof raw->names[row],
            .msg_iov = raw->parts[row],
            .msg_iovlen = 2,
            .msg_control = raw->controls[row],
            .msg_controllen = sizeof raw->controls[row],
        };
    }
    return lane->io->receive_many(udp->fd, raw->messages, RAW_MESSAGES);
}

/* The outer header: over IPv4 in the packet itself, over IPv6 in a control message. */
struct outer {
    uint32_t tos, header;
    bool fits;
};

static struct outer outer_of(struct raw *raw, uint32_t row) {
    struct outer outer = {0, 0, raw->messages[row].msg_len <= raw->stride};
    if (raw->names[row].any.sa_family == AF_INET) {
        struct slice packet = room_of(raw, row);
        if (raw->messages[row].msg_len >= IPV4_HEADER_SIZE)
            outer = (struct outer){read8(packet, 1), (read8(packet, 0) & 15u) * 4, outer.fits};
        return outer;
    }
    struct msghdr *header = &raw->messages[row].msg_hdr;
    int32_t number;
    for (struct cmsghdr *each = CMSG_FIRSTHDR(header); each != NULL; each = CMSG_NXTHDR(header, each))
        if (tells_number(each, IPPROTO_IPV6, IPV6_TCLASS, &number))
            outer.tos = (uint32_t)number & 0xFF;
    return outer;
}

/* Find the consecutive rows from `next` on with the same outer header. */
static void find_group(struct raw *raw) {
    struct outer first = outer_of(raw, raw->next);
    uint32_t end = raw->next + 1;
    for (; end < raw->count; end++) {
        struct outer other = outer_of(raw, end);
        if (other.tos != first.tos || other.header != first.header || other.fits != first.fits ||
            memcmp(&raw->names[end], &raw->names[raw->next], sizeof raw->names[end]) != 0)
            break;
    }
    raw->first = raw->next;
    raw->end = end;
    raw->tos = first.tos;
    raw->header = first.header;
    raw->fits = first.fits;
}

/* The GRE header before a packet. */
struct gre {
    uint32_t start, key, number;
    bool has_key, has_number;
};

/* Read the header of a payload, which may have none; false if it is for Python to refuse (encap.gre: _read, and the
 * checksum). */
static bool read_gre(const struct udp *udp, struct slice payload, struct gre *gre) {
    uint32_t size = payload.size;
    *gre = (struct gre){0};
    if (udp->layout != LAYOUT_GRE)
        return true;
    if (size < GRE_SIZE)
        return false;
    uint32_t flags = read16(payload, 0), at = GRE_SIZE;
    bool has_checksum = flags & GRE_CHECKSUM;
    gre->has_key = flags & GRE_KEY;
    gre->has_number = flags & GRE_SEQUENCE;
    gre->start = GRE_SIZE + GRE_FIELD * ((uint32_t)has_checksum + gre->has_key + gre->has_number);
    if (flags & (GRE_REFUSED | GRE_VERSION) || size < gre->start)
        return false;
    if (has_checksum) {
        if (fold(sum_bytes(payload)) != 0xFFFF)
            return false;
        at += GRE_FIELD;
    }
    gre->key = gre->has_key ? read32(payload, at) : 0;
    gre->number = gre->has_number ? read32(payload, gre->start - GRE_FIELD) : 0;
    return true;
}

/* Return whether a packet of this number is not above the last of its sender (clear.raw: _check_sequence). */
static bool is_late(const struct unsealed *unsealed, uint32_t number, double now) {
    uint32_t ahead = number - (uint32_t)unsealed->sequence;
    return unsealed->sequence >= 0 && now - unsealed->sequence_at < SEQUENCE_LIFE && (!ahead || ahead >= 1u << 31);
}

/* Set *packet* to the packet after the header *gre* of a payload of *udp*; false if it is not whole. */
static bool strip(const struct udp *udp, const struct tunnel *tunnel, const struct gre *gre, struct slice payload,
                  struct slice *packet) {
    *packet = slice_from(payload, gre->start);
    *packet = slice_part(*packet, 0, packet_length(*packet));
    if (!packet->size)
        return false;
    bool is_ipv6 = version_of(*packet) == 6;
    if (udp->layout == LAYOUT_GRE && read16(payload, 2) != (is_ipv6 ? ETHERTYPE_IPV6 : ETHERTYPE_IPV4))
        return false;
    return tunnel->protocols[is_ipv6] == udp->protocol;
}

static enum in_result hand_row(struct raw *raw, uint32_t row) {
    raw->back_row = row;
    return IN_RAW;
}

/* Write the packet of *row*. */
static enum in_result deliver(struct lane *lane, struct peer *first, uint32_t row) {
    struct raw *raw = &lane->raw;
    uint32_t ecn = raw->tos & 3, mtu = (uint32_t)lane->state->mtu;
    uint32_t size = raw->messages[row].msg_len;
    if (size < raw->header)
        return hand_row(raw, row);
    struct slice payload = slice_from(whole_of(raw, row, size), raw->header), packet;
    uint8_t header[VIRTIO_SIZE];
    struct gre gre;
    if (!read_gre(raw->udp, payload, &gre))
        return hand_row(raw, row);
    struct peer *named = places_named(first, gre.has_key, gre.key);
    if (named == NULL || !strip(raw->udp, named->tunnel, &gre, payload, &packet))
        return hand_row(raw, row);
    struct peer *peer = places_sender(lane, named, packet);
    if (peer == NULL || (gre.has_number && is_late(peer->unsealed, gre.number, raw->now)) ||
        (ecn && !take_outer_ecn(packet, ecn)) ||
        !virtio_for(peer->unsealed, packet, mtu, slice_of(header, sizeof header)))
        return hand_row(raw, row);
    if (gre.has_number) {
        peer->unsealed->sequence = gre.number;
        peer->unsealed->sequence_at = raw->now;
    }
    counts_of(lane, peer)->rx_packets++;
    counts_of(lane, peer)->rx_bytes += payload.size;
    set_time(&peer->contact->last_received, raw->now);
    uint32_t path = (uint32_t)peer->path->mtu;
    clamp_syn(packet, path < mtu ? path : mtu, header[0]);
    struct iovec parts[2] = {{header, VIRTIO_SIZE}, iovec_of(packet)};
    write_tun(lane, peer, parts, 2);
    return IN_DONE;
}

/* Return the first of the peers at the place of *peer* to whose tunnel alone the first row of the group belongs; NULL
 * if there is none (clear.raw: _tunnel). */
static struct peer *named_by(const struct raw *raw, struct peer *peer) {
    struct slice payload = slice_from(room_of(raw, raw->first), raw->header);
    uint32_t whole = raw->messages[raw->first].msg_len, size = whole > raw->header ? whole - raw->header : 0;
    for (; peer != NULL; peer = places_next(peer)) {
        const struct tunnel *tunnel = peer->tunnel;
        if (tunnel == NULL || tunnel->layout != raw->udp->layout || tunnel->number_at || tunnel->has_checksum ||
            size <= tunnel->prefix_size)
            continue; /* with a number or a checksum, all payloads begin differently */
        uint32_t version = read8(payload, tunnel->prefix_size) >> 4;
        if ((version == 4 || version == 6) && tunnel->protocols[version == 6] == raw->udp->protocol &&
            slice_has_at(payload, 0, tunnel->prefix[version == 6], tunnel->prefix_size))
            return peer;
    }
    return NULL;
}

/* Return whether the rows of the group are of the tunnel of *named*, whole, and some of them make super-packets. */
static bool are_joined(struct lane *lane, const struct peer *named) {
    struct raw *raw = &lane->raw;
    struct in *in = &lane->in;
    const struct tunnel *tunnel = named->tunnel;
    uint32_t count = raw->end - raw->first, stride = raw->stride, length;
    uint32_t before = raw->header + tunnel->prefix_size;
    for (uint32_t row = raw->first; row < raw->end; row++)
        if (raw->messages[row].msg_len < before + IPV6_HEADER_SIZE)
            return false;
    uint32_t version = read8(room_of(raw, raw->first), before) >> 4;
    for (uint32_t row = raw->first; row < raw->end; row++) {
        struct slice room = room_of(raw, row);
        uint32_t size = raw->messages[row].msg_len;
        if (!slice_has_at(room, raw->header, tunnel->prefix[version == 6], tunnel->prefix_size))
            return false;
        if (row < raw->end - 1)
            slice_clear(slice_from(room, size));
        length = version == 4 ? read16(room, before + 2) : IPV6_HEADER_SIZE + read16(room, before + 4);
        if (length > size - before)
            return false; /* truncated somewhere */
    }
    uint32_t last = raw->messages[raw->end - 1].msg_len;
    slice_clear(slice_from(room_of(raw, raw->end - 1), last));
    in->buffer = slice_from(raw->rows, raw->first * stride);
    in->stride = stride;
    in->rows = count;
    in->last = last;
    in->before = before;
    in->link = 0;
    in->tag = 0;
    return join_rows(in, lane->state->joins_udp);
}

static void deliver_run(struct lane *lane, struct peer *peer, uint32_t first, uint32_t count) {
    struct raw *raw = &lane->raw;
    for (uint32_t row = first; row < first + count; row++)
        counts_of(lane, peer)->rx_bytes += raw->messages[raw->first + row].msg_len - raw->header;
    counts_of(lane, peer)->rx_packets += count;
    set_time(&peer->contact->last_received, raw->now);
    write_run(lane, peer, first, count);
}

/* Deliver the rows of the group from `next` on; anything but IN_DONE is for Python. */
static enum in_result deliver_group(struct lane *lane, struct peer *first) {
    struct raw *raw = &lane->raw;
    struct in *in = &lane->in;
    enum in_result result = IN_DONE;
    struct peer *named = raw->is_joined ? named_by(raw, first) : NULL;
    in->buffer = slice_from(raw->rows, raw->first * raw->stride);
    while (raw->next < raw->end && result == IN_DONE) {
        uint32_t row = raw->next - raw->first, count = raw->is_joined ? in->runs[row] : 1;
        raw->next += count;
        if (count == 1) {
            result = deliver(lane, first, raw->first + row);
            continue;
        }
        struct slice packet = slice_from(room_of(raw, raw->first + row), in->before);
        struct peer *peer = named == NULL ? NULL : places_sender(lane, named, packet);
        if (peer == NULL) { /* for Python, with everything after it */
            raw->first += row;
            raw->next = raw->end;
            return IN_RAW_GROUP;
        }
        deliver_run(lane, peer, row, count);
    }
    return result;
}

/* Return whether to drop the group, of the peers at the place of *first*, early. */
static bool is_crowded_out(struct lane *lane, struct peer *first, uint32_t pieces) {
    struct raw *raw = &lane->raw;
    const struct crowding *crowding = &raw->udp->crowding;
    if (!crowding->is_behind ||
        crowding_admits(lane, crowding, &counts_of(lane, first)->share, pieces, raw->now))
        return false;
    struct slice begin = room_of(raw, raw->first);
    if (raw->fits)
        begin = slice_part(begin, 0, raw->messages[raw->first].msg_len);
    record_packet(lane, first, DROP_CROWDED, raw->end - raw->first, DATAGRAM, slice_from(begin, raw->header));
    return true;
}

/* Handle the received rows from `next` on. */
static enum in_result take(struct lane *lane) {
    struct raw *raw = &lane->raw;
    while (raw->next < raw->count) {
        bool is_new = raw->next >= raw->end;
        uint32_t pieces = 0;
        if (is_new) {
            find_group(raw);
            pieces = pieces_of_rows(raw);
            raw->pieces += pieces;
        }
        struct peer *first = places_find(lane->state, raw->udp, &raw->names[raw->first]);
        if (first == NULL) {
            record_drop(lane, NULL, DROP_OUTER_SOURCE, raw->end - raw->first);
            raw->next = raw->end;
            continue;
        }
        if (is_new && is_crowded_out(lane, first, pieces)) {
            raw->next = raw->end;
            continue;
        }
        if (is_new) {
            uint32_t ecn = raw->tos & 3; /* a congestion mark changes each packet separately */
            bool is_alike = raw->fits && raw->end - raw->first > 1 && ecn != CE && ecn != ECT_1;
            struct peer *named = is_alike ? named_by(raw, first) : NULL;
            raw->is_joined = named != NULL && are_joined(lane, named);
        }
        enum in_result result = deliver_group(lane, first);
        if (result != IN_DONE)
            return result;
    }
    return IN_DONE;
}

/* Make rows large enough for the largest packet that came, as far as there is room (mmsg: fit). */
static void fit(struct raw *raw) {
    uint32_t largest = 0;
    for (uint32_t row = 0; row < raw->count; row++)
        if (raw->messages[row].msg_len <= LARGEST_ROW && raw->messages[row].msg_len > largest)
            largest = raw->messages[row].msg_len;
    if (!largest)
        largest = raw->stride;
    if (largest < LEAST_ROW)
        largest = LEAST_ROW;
    largest += largest & 1;
    raw->stride = largest < LARGEST_ROW ? largest : LARGEST_ROW;
}

/* Take the packets of *udp*, a raw socket, a batch or a little more; IN_EMPTY: there is nothing more.  After any result
 * but IN_DONE and IN_EMPTY the next call continues the same go. */
enum in_result raw_drain(struct lane *lane, struct udp *udp, double now) {
    struct raw *raw = &lane->raw;
    struct in *in = &lane->in;
    struct slice buffer = in->buffer;
    enum in_result result = IN_DONE;
    if (!raw->is_going) {
        raw->is_going = true;
        raw->taken = raw->pieces = raw->packets = raw->count = raw->next = raw->end = 0;
        crowding_begin(lane, udp, now);
    }
    raw->udp = udp;
    raw->now = now;
    for (;;) {
        if (raw->count) {
            result = take(lane);
            in->buffer = buffer;
            if (result != IN_DONE)
                return result;
            uint32_t count = raw->count, sum = 0;
            for (uint32_t row = 0; row < count; row++)
                sum += raw->messages[row].msg_len;
            if (count > 1)
                fit(raw);
            raw->count = raw->next = raw->end = 0;
            raw->packets += count;
            raw->taken += sum;
            if (count < RAW_MESSAGES) {
                result = IN_EMPTY;
                break;
            }
        }
        if (raw->taken >= DRAIN_BYTES || raw->pieces >= AT_ONCE || lane->drop_count >= DROPS_AT_ONCE)
            break;
        int received = receive(lane, udp);
        if (received < 0 && errno == EAGAIN) {
            result = IN_EMPTY;
            break;
        }
        if (received < 0) { /* an ICMP error for an earlier packet, reported here once: nobody has authenticated it */
            record_drop(lane, NULL, DROP_UDP_ERROR, 1);
            raw->taken += LARGEST_ROW;
        } else {
            raw->count = (uint32_t)received;
        }
    }
    crowding_end(udp, raw->pieces, raw->packets, raw->taken, result != IN_EMPTY);
    raw->is_going = false;
    return result;
}
