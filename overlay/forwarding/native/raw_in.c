/* From raw sockets to the tun, as overlay/forwarding/clear/raw.py has it: packets right behind an outer IP header, or behind
 * that and a header of GRE.  One call gives many, rows of one buffer; those of one sender and one tunnel are joined. */
#include "bytes.h"
#include "native.h"
#include "packet.h"
#include "shared.h"

#include <errno.h>
#include <netinet/in.h>

enum { ECT_1 = 1, CE = 3, GRE_SIZE = 4, GRE_KEY = 0x2000, GRE_FIELD = 4 };
enum { ETHERTYPE_IPV4 = 0x0800, ETHERTYPE_IPV6 = 0x86DD };
enum { LARGEST_ROW = 9216, FIRST_ROW = 1500, LEAST_ROW = 128, DRAIN_BYTES = 512 * 1024 };
enum { ROWS_BYTES = RAW_MESSAGES * LARGEST_ROW + LARGEST_ROW };

size_t raw_bytes(void) { return ROWS_BYTES + (size_t)RAW_MESSAGES * RAW_REST; }

static uint8_t *rest_of(const struct raw *raw, uint32_t row) {
    return raw->rows + ROWS_BYTES + (size_t)row * RAW_REST;
}

static uint8_t *row_at(const struct raw *raw, uint32_t row) { return raw->rows + (size_t)row * raw->stride; }

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

/* What stands outside: over IPv4 in the packet itself, over IPv6 beside it. */
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

/* Return where the packet in a payload begins, if the payload is of *tunnel*; UINT32_MAX for anything else. */
static uint32_t strip(const struct tunnel *tunnel, const struct udp *udp, const uint8_t *payload, uint32_t size,
                      uint32_t *length) {
    uint32_t start = 0;
    if (tunnel->layout == LAYOUT_GRE) {
        if (size < GRE_SIZE)
            return UINT32_MAX;
        uint32_t flags = get16(payload);
        start = GRE_SIZE + (flags ? GRE_FIELD : 0);
        if ((flags && flags != GRE_KEY) || tunnel->has_identifier != (flags == GRE_KEY) || size < start ||
            (flags && get32(payload + GRE_SIZE) != tunnel->identifier))
            return UINT32_MAX;
    }
    const uint8_t *packet = payload + start;
    *length = packet_length(packet, size - start);
    if (!*length)
        return UINT32_MAX;
    bool is_ipv6 = packet[0] >> 4 == 6;
    if (tunnel->layout == LAYOUT_GRE && get16(payload + 2) != (is_ipv6 ? ETHERTYPE_IPV6 : ETHERTYPE_IPV4))
        return UINT32_MAX;
    return tunnel->protocols[is_ipv6] == udp->protocol ? start : UINT32_MAX;
}

static enum in_result hand_row(struct raw *raw, uint32_t row) {
    raw->back_row = row;
    return IN_RAW;
}

/* Write the packet of *row*. */
static enum in_result deliver(struct lane *lane, struct peer *peer, uint32_t row) {
    struct raw *raw = &lane->raw;
    uint32_t ecn = raw->tos & 3, mtu = (uint32_t)lane->state->mtu, path = (uint32_t)peer->path->mtu, length;
    uint32_t size = raw->messages[row].msg_len;
    if (!raw->fits || size < raw->header || peer->tunnel->layout != lane->raw.udp->layout)
        return hand_row(raw, row);
    uint8_t *payload = row_at(raw, row) + raw->header, header[VIRTIO_SIZE];
    size -= raw->header;
    uint32_t start = strip(peer->tunnel, raw->udp, payload, size, &length);
    if (start == UINT32_MAX)
        return hand_row(raw, row);
    uint8_t *packet = payload + start;
    if (!is_from(lane, peer, packet, length) || (ecn && !take_outer_ecn(packet, ecn)) ||
        !virtio_for(peer->unsealed, packet, length, mtu, header))
        return hand_row(raw, row);
    counts_of(lane, peer)->rx_packets++;
    counts_of(lane, peer)->rx_bytes += size;
    set_time(&peer->contact->last_received, raw->now);
    clamp_syn(packet, length, path < mtu ? path : mtu, header[0]);
    struct iovec parts[2] = {{header, VIRTIO_SIZE}, {packet, length}};
    write_tun(lane, peer, parts, 2);
    return IN_DONE;
}

/* Return whether the rows of the group are of one tunnel, whole, and some of them make super-packets. */
static bool are_joined(struct lane *lane, const struct peer *peer) {
    struct raw *raw = &lane->raw;
    struct in *in = &lane->in;
    const struct tunnel *tunnel = peer->tunnel;
    uint32_t count = raw->end - raw->first, ecn = raw->tos & 3, stride = raw->stride, length;
    if (!raw->fits || count < 2 || ecn == CE || ecn == ECT_1 || tunnel->layout != raw->udp->layout)
        return false;
    const uint8_t *first = row_at(raw, raw->first);
    uint32_t before = raw->header + tunnel->prefix_size;
    for (uint32_t row = raw->first; row < raw->end; row++)
        if (raw->messages[row].msg_len < before + IPV6_HEADER_SIZE)
            return false;
    uint32_t version = first[before] >> 4;
    if ((version != 4 && version != 6) || tunnel->protocols[version == 6] != raw->udp->protocol)
        return false;
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
    in->tag = 0;
    return join_rows(in, lane->state->joins_udp);
}

/* Return whether it is known of each super-packet of the group that *peer* may send it. */
static bool are_from(const struct lane *lane, const struct peer *peer) {
    const struct raw *raw = &lane->raw;
    const struct in *in = &lane->in;
    for (uint32_t row = 0; row < in->rows; row += in->runs[row])
        if (in->runs[row] > 1 &&
            !is_from(lane, peer, row_at(raw, raw->first + row) + in->before, raw->stride - in->before))
            return false;
    return true;
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
static enum in_result deliver_group(struct lane *lane, struct peer *peer) {
    struct raw *raw = &lane->raw;
    struct in *in = &lane->in;
    enum in_result result = IN_DONE;
    in->buffer = row_at(raw, raw->first);
    while (raw->next < raw->end && result == IN_DONE) {
        uint32_t row = raw->next - raw->first, count = raw->is_joined ? in->runs[row] : 1;
        raw->next += count;
        if (count > 1)
            deliver_run(lane, peer, row, count);
        else
            result = deliver(lane, peer, raw->first + row);
    }
    return result;
}

/* Take what was received from `next` on. */
static enum in_result take(struct lane *lane) {
    struct raw *raw = &lane->raw;
    while (raw->next < raw->count) {
        bool is_new = raw->next >= raw->end, is_one;
        if (is_new)
            find_group(raw);
        struct peer *peer = places_find(lane->state, raw->udp, &raw->names[raw->first], &is_one);
        if (peer == NULL) {
            note_drop(lane, NULL, DROP_OUTER_SOURCE, raw->end - raw->first);
            raw->next = raw->end;
            continue;
        }
        if (!is_one || peer->tunnel == NULL || peer->tunnel->layout != raw->udp->layout) {
            raw->next = raw->end;
            return IN_RAW_GROUP;
        }
        if (is_new) {
            raw->is_joined = are_joined(lane, peer);
            if (raw->is_joined && !are_from(lane, peer)) {
                raw->next = raw->end;
                return IN_RAW_GROUP;
            }
        }
        enum in_result result = deliver_group(lane, peer);
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
