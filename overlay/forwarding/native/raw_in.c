/* From raw sockets to the tun, as overlay/forwarding/clear/raw.py has it: packets right behind an outer IP header, or behind
 * that and a header of GRE.  One call gives many, rows of one buffer; those of one sender and one tunnel are joined. */
#include "bytes.h"
#include "native.h"
#include "packet.h"
#include "shared.h"

#include <errno.h>
#include <netinet/in.h>

enum { ECT_1 = 1, CE = 3 };
enum { GRE_CHECKSUM = 0x8000, GRE_KEY = 0x2000, GRE_SEQUENCE = 0x1000, GRE_REFUSED = 0x4C00, GRE_VERSION = 7 }; /* encap.gre */
#define SEQUENCE_LIFE 3.0 /* clear.raw */
enum { LARGEST_ROW = 9216, FIRST_ROW = 1500, LEAST_ROW = 128, DRAIN_BYTES = 512 * 1024 };
enum { ROWS_BYTES = RAW_MESSAGES * LARGEST_ROW + LARGEST_ROW };

size_t raw_bytes(void) { return ROWS_BYTES + (size_t)RAW_MESSAGES * RAW_REST; }

static uint8_t *rest_of(const struct raw *raw, uint32_t row) {
    return raw->rows + ROWS_BYTES + (size_t)row * RAW_REST;
}

static uint8_t *row_at(const struct raw *raw, uint32_t row) { return raw->rows + (size_t)row * raw->stride; }

/* Return the whole packet of *row*; where it is longer than that, its beginning is copied before its rest.
 *
 * There is room: behind the rows for LARGEST_ROW bytes, and otherwise behind the rest before, for a packet is not longer
 * than RAW_REST; and those before have been dealt with. */
static uint8_t *whole_at(const struct raw *raw, uint32_t row) {
    if (raw->fits)
        return row_at(raw, row);
    uint8_t *begin = rest_of(raw, row) - raw->stride;
    memcpy(begin, row_at(raw, row), raw->stride);
    return begin;
}

/* Receive; return how many packets came, or -1 as recvmmsg() does. */
static int receive(struct lane *lane, struct udp *udp) {
    struct raw *raw = &lane->raw;
    if (!raw->stride)
        raw->stride = FIRST_ROW;
    memset(raw->names, 0, sizeof raw->names);
    memset(raw->controls, 0, sizeof raw->controls);
    for (uint32_t row = 0; row < RAW_MESSAGES; row++) {
        raw->parts[row][0] = (struct iovec){row_at(raw, row), raw->stride};
        raw->parts[row][1] = (struct iovec){rest_of(raw, row), RAW_REST};
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

/* What stands outside: over IPv4 in the packet itself, over IPv6 in a control message. */
struct outer {
    uint32_t tos, header;
    bool fits;
};

static struct outer outer_of(struct raw *raw, uint32_t row) {
    struct outer outer = {0, 0, raw->messages[row].msg_len <= raw->stride};
    if (raw->names[row].any.sa_family == AF_INET) {
        const uint8_t *at = row_at(raw, row);
        if (raw->messages[row].msg_len >= IPV4_HEADER_SIZE)
            outer = (struct outer){at[1], (at[0] & 15u) * 4, outer.fits};
        return outer;
    }
    struct msghdr *header = &raw->messages[row].msg_hdr;
    for (struct cmsghdr *each = CMSG_FIRSTHDR(header); each != NULL; each = CMSG_NXTHDR(header, each))
        if (each->cmsg_level == IPPROTO_IPV6 && each->cmsg_type == IPV6_TCLASS)
            outer.tos = CMSG_DATA(each)[0];
    return outer;
}

/* Find the rows from `next` on that have the same outside, one behind the other. */
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

/* What the header of GRE before a packet says. */
struct gre {
    uint32_t start, key, number;
    bool has_key, has_number;
};

/* Read the header of a payload, which may have none; false where it is for Python to refuse (encap.gre: _read, and the
 * checksum). */
static bool read_gre(const struct udp *udp, const uint8_t *payload, uint32_t size, struct gre *gre) {
    *gre = (struct gre){0};
    if (udp->layout != LAYOUT_GRE)
        return true;
    if (size < GRE_SIZE)
        return false;
    uint32_t flags = get16(payload), at = GRE_SIZE;
    bool has_checksum = flags & GRE_CHECKSUM;
    gre->has_key = flags & GRE_KEY;
    gre->has_number = flags & GRE_SEQUENCE;
    gre->start = GRE_SIZE + GRE_FIELD * ((uint32_t)has_checksum + gre->has_key + gre->has_number);
    if (flags & (GRE_REFUSED | GRE_VERSION) || size < gre->start)
        return false;
    if (has_checksum) {
        if (fold(sum_bytes(payload, size)) != 0xFFFF)
            return false;
        at += GRE_FIELD;
    }
    gre->key = gre->has_key ? get32(payload + at) : 0;
    gre->number = gre->has_number ? get32(payload + gre->start - GRE_FIELD) : 0;
    return true;
}

/* Return whether a packet of this number is not above the last of its sender (clear.raw: _check_sequence). */
static bool is_late(const struct unsealed *unsealed, uint32_t number, double now) {
    uint32_t ahead = number - (uint32_t)unsealed->sequence;
    return unsealed->sequence >= 0 && now - unsealed->sequence_at < SEQUENCE_LIFE && (!ahead || ahead >= 1u << 31);
}

/* Return whether a whole packet of *length* bytes stands behind the header *gre* of a payload of *udp*. */
static bool strip(const struct udp *udp, const struct tunnel *tunnel, const struct gre *gre, const uint8_t *payload,
                  uint32_t size, uint32_t *length) {
    const uint8_t *packet = payload + gre->start;
    *length = packet_length(packet, size - gre->start);
    if (!*length)
        return false;
    bool is_ipv6 = packet[0] >> 4 == 6;
    if (udp->layout == LAYOUT_GRE && get16(payload + 2) != (is_ipv6 ? ETHERTYPE_IPV6 : ETHERTYPE_IPV4))
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
    uint32_t ecn = raw->tos & 3, mtu = (uint32_t)lane->state->mtu, length;
    uint32_t size = raw->messages[row].msg_len;
    if (size < raw->header)
        return hand_row(raw, row);
    uint8_t *payload = whole_at(raw, row) + raw->header, header[VIRTIO_SIZE];
    size -= raw->header;
    struct gre gre;
    if (!read_gre(raw->udp, payload, size, &gre))
        return hand_row(raw, row);
    struct peer *named = places_named(first, gre.has_key, gre.key);
    if (named == NULL || !strip(raw->udp, named->tunnel, &gre, payload, size, &length))
        return hand_row(raw, row);
    uint8_t *packet = payload + gre.start;
    struct peer *peer = places_sender(lane, named, packet, length);
    if (peer == NULL || (gre.has_number && is_late(peer->unsealed, gre.number, raw->now)) ||
        (ecn && !take_outer_ecn(packet, ecn)) || !virtio_for(peer->unsealed, packet, length, mtu, header))
        return hand_row(raw, row);
    if (gre.has_number) {
        peer->unsealed->sequence = gre.number;
        peer->unsealed->sequence_at = raw->now;
    }
    counts_of(lane, peer)->rx_packets++;
    counts_of(lane, peer)->rx_bytes += size;
    set_time(&peer->contact->last_received, raw->now);
    uint32_t path = (uint32_t)peer->path->mtu;
    clamp_syn(packet, length, path < mtu ? path : mtu, header[0]);
    struct iovec parts[2] = {{header, VIRTIO_SIZE}, {packet, length}};
    write_tun(lane, peer, parts, 2);
    return IN_DONE;
}

/* Return the first of the peers at the place of *peer* whose tunnel the first row of the group is of, and nothing but that;
 * NULL for none (clear.raw: _tunnel). */
static struct peer *named_by(const struct raw *raw, struct peer *peer) {
    const uint8_t *payload = row_at(raw, raw->first) + raw->header;
    uint32_t whole = raw->messages[raw->first].msg_len, size = whole > raw->header ? whole - raw->header : 0;
    for (; peer != NULL; peer = places_next(peer)) {
        const struct tunnel *tunnel = peer->tunnel;
        if (tunnel == NULL || tunnel->layout != raw->udp->layout || tunnel->number_at || tunnel->has_checksum ||
            size <= tunnel->prefix_size)
            continue; /* with a number or a checksum no two payloads begin alike */
        uint32_t version = payload[tunnel->prefix_size] >> 4;
        if ((version == 4 || version == 6) && tunnel->protocols[version == 6] == raw->udp->protocol &&
            memcmp(payload, tunnel->prefix[version == 6], tunnel->prefix_size) == 0)
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
    uint32_t version = row_at(raw, raw->first)[before] >> 4;
    for (uint32_t row = raw->first; row < raw->end; row++) {
        uint8_t *at = row_at(raw, row);
        uint32_t size = raw->messages[row].msg_len;
        if (memcmp(at + raw->header, tunnel->prefix[version == 6], tunnel->prefix_size) != 0)
            return false;
        if (row < raw->end - 1)
            memset(at + size, 0, stride - size);
        length = version == 4 ? get16(at + before + 2) : IPV6_HEADER_SIZE + get16(at + before + 4);
        if (length > size - before)
            return false; /* cut short somewhere */
    }
    uint32_t last = raw->messages[raw->end - 1].msg_len;
    memset(row_at(raw, raw->end - 1) + last, 0, stride - last);
    in->buffer = row_at(raw, raw->first);
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
    in->buffer = row_at(raw, raw->first);
    while (raw->next < raw->end && result == IN_DONE) {
        uint32_t row = raw->next - raw->first, count = raw->is_joined ? in->runs[row] : 1;
        raw->next += count;
        if (count == 1) {
            result = deliver(lane, first, raw->first + row);
            continue;
        }
        const uint8_t *packet = row_at(raw, raw->first + row) + in->before;
        struct peer *peer = named == NULL ? NULL : places_sender(lane, named, packet, raw->stride - in->before);
        if (peer == NULL) { /* for Python, with all that is behind it */
            raw->first += row;
            raw->next = raw->end;
            return IN_RAW_GROUP;
        }
        deliver_run(lane, peer, row, count);
    }
    return result;
}

/* Take what was received from `next` on. */
static enum in_result take(struct lane *lane) {
    struct raw *raw = &lane->raw;
    while (raw->next < raw->count) {
        bool is_new = raw->next >= raw->end;
        if (is_new)
            find_group(raw);
        struct peer *first = places_find(lane->state, raw->udp, &raw->names[raw->first]);
        if (first == NULL) {
            note_drop(lane, NULL, DROP_OUTER_SOURCE, raw->end - raw->first);
            raw->next = raw->end;
            continue;
        }
        if (is_new) {
            uint32_t ecn = raw->tos & 3; /* a congestion mark changes packets one by one */
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

/* Have rows room for the largest of what came, as far as there is room (mmsg: fit). */
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

/* Take what *udp*, a raw socket, has, a batch or a little more; IN_EMPTY: there is nothing more.  After any result but
 * IN_DONE and IN_EMPTY the next call goes on with the same go. */
enum in_result raw_drain(struct lane *lane, struct udp *udp, double now) {
    struct raw *raw = &lane->raw;
    struct in *in = &lane->in;
    uint8_t *buffer = in->buffer;
    enum in_result result = IN_DONE;
    if (!raw->is_going) {
        raw->is_going = true;
        raw->taken = raw->count = raw->next = raw->end = 0;
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
            if (count < RAW_MESSAGES) {
                result = IN_EMPTY;
                break;
            }
            raw->taken += sum;
        }
        if (raw->taken >= DRAIN_BYTES || lane->drop_count >= DROPS_AT_ONCE)
            break;
        int received = receive(lane, udp);
        if (received < 0 && errno == EAGAIN) {
            result = IN_EMPTY;
            break;
        }
        if (received < 0) { /* an ICMP error for an earlier packet, reported here once: nobody has authenticated it */
            note_drop(lane, NULL, DROP_UDP_ERROR, 1);
            raw->taken += LARGEST_ROW;
        } else {
            raw->count = (uint32_t)received;
        }
    }
    raw->is_going = false;
    return result;
}
