/* Which opened datagrams of one receive make super-packets, like overlay/forwarding/offload/join.py. */
#include "packet.h"

enum { FLAG_PSH = 8, FLAG_ACK = 16, FLAG_ECE = 64 };

struct segment { /* one row, if it is a segment of the first row's flow */
    struct slice head; /* its packet, and the rest of the row after it */
    uint32_t payload;
    bool is_good;
};

/* Return the packet of *row*, and the rest of the row up to the tag. */
static struct slice packet_of(const struct in *in, uint32_t row) {
    uint32_t overhead = in->before + in->tag, size = row_size(in, row);
    return slice_part(in->buffer, row * in->stride + in->before, size > overhead ? size - overhead : 0);
}

static uint32_t told_length(struct slice packet, uint32_t version) {
    return version == 4 ? read16(packet, 2) : IPV6_HEADER_SIZE + read16(packet, 4);
}

static struct segment segment_of(const struct in *in, const struct flow *flow, struct slice first, uint32_t row) {
    struct slice head = packet_of(in, row);
    uint32_t own = head.size, length = told_length(head, flow->version), l4 = flow->l4;
    struct segment segment = {head, length - flow->size, false};
    if (own < flow->size || length <= flow->size || length > own || !slice_same_at(head, first, 0, 1))
        return segment;
    if (flow->version == 4 && (!slice_same_at(head, first, 6, 2) || !slice_same_at(head, first, 9, 1)))
        return segment;
    if (flow->version == 6 && !slice_same_at(head, first, 6, 1))
        return segment;
    if (flow->protocol == PROTOCOL_TCP && !slice_same_at(head, first, l4 + 12, 1))
        return segment;
    if (flow->protocol == PROTOCOL_UDP && (read16(head, l4 + 4) != length - l4 || !read16(head, l4 + 6)))
        return segment;
    if (flow->version == 4 && fold(sum_bytes(slice_part(head, 0, l4))) != 0xFFFF)
        return segment;
    /* The bytes after the packet count as well: they are padding, which is zeros */
    segment.is_good = fold(sum_bytes(slice_from(head, l4)) + pseudo_sum(head, flow, length - l4)) == 0xFFFF;
    return segment;
}

/* Return whether the headers of two segments are equal where they must be (join.py: _mask). */
static bool are_alike(struct slice one, struct slice other, const struct flow *flow) {
    uint32_t l4 = flow->l4;
    if (flow->version == 4) {
        if (!slice_same_at(one, other, 0, 2) || !slice_same_at(one, other, 6, 4) ||
            !slice_same_at(one, other, 12, l4 - 12))
            return false;
    } else if (!slice_same_at(one, other, 0, 4) || !slice_same_at(one, other, 6, 34)) {
        return false;
    }
    if (!slice_same_at(one, other, l4, 4))
        return false;
    if (flow->protocol == PROTOCOL_UDP)
        return true;
    return slice_same_at(one, other, l4 + 8, 5) && !((read8(one, l4 + 13) ^ read8(other, l4 + 13)) & ~FLAG_PSH) &&
           slice_same_at(one, other, l4 + 14, 2) && slice_same_at(one, other, l4 + 18, flow->size - l4 - 18);
}

static bool goes_on(const struct segment *before, const struct segment *after, const struct flow *flow) {
    uint32_t l4 = flow->l4;
    if (!before->is_good || !after->is_good || after->payload > before->payload ||
        !are_alike(before->head, after->head, flow))
        return false;
    if (flow->version == 4 && (uint16_t)(read16(after->head, 4) - read16(before->head, 4)) != 1)
        return false;
    if (flow->protocol == PROTOCOL_UDP)
        return true;
    return read32(after->head, l4 + 4) - read32(before->head, l4 + 4) == before->payload &&
           (read8(after->head, l4 + 13) & ~(FLAG_PSH | FLAG_ECE)) == FLAG_ACK &&
           (read8(before->head, l4 + 13) & ~FLAG_ECE) == FLAG_ACK;
}

/* Write into `runs`, at the first row of each super-packet, how many rows make it; false if no rows can be joined.
 *
 * Rows are joined if neither kernel nor receiver can notice (join.py: Rows.runs), at most MAXIMUM_JOINED in one, and
 * no more than one IP packet may have.  All rows are new, and longer than the bytes around their packets. */
bool join_rows(struct in *in, bool joins_udp) {
    struct slice first = packet_of(in, 0);
    uint32_t count = in->rows;
    struct flow flow;
    if (count < 2 || in->stride & 1 || first.size < 28 || !flow_of(first, &flow) ||
        (flow.protocol == PROTOCOL_UDP && !joins_udp))
        return false;
    if (told_length(first, flow.version) <= flow.size)
        return false;
    struct segment before = segment_of(in, &flow, first, 0);
    uint32_t start = 0, joined = 0, largest = before.payload, total = flow.size + largest;
    in->runs[0] = 1;
    for (uint32_t row = 1; row < count; row++) {
        struct segment after = segment_of(in, &flow, first, row);
        if (goes_on(&before, &after, &flow) && before.payload == largest && row - start < MAXIMUM_JOINED &&
            total + after.payload <= MAXIMUM_IP) {
            in->runs[start]++;
            joined++;
            total += after.payload;
        } else {
            start = row;
            largest = after.payload;
            total = flow.size + largest;
            in->runs[row] = 1;
        }
        before = after;
    }
    return joined > 0;
}

/* Write the virtio header and the headers of the super-packet of the *count* rows from *first* on at *head*; return
 * their size.  They include an Ethernet header of `link` bytes; *headers* gets the size of all headers before the
 * payload in a row's packet. */
uint32_t join_head(const struct in *in, uint32_t first, uint32_t count, struct slice head, uint32_t *headers) {
    struct slice packet = packet_of(in, first), end = packet_of(in, first + count - 1);
    struct flow flow;
    *headers = 0;
    if (!flow_of(packet, &flow))
        return 0;
    uint32_t l4 = flow.l4, kind = GSO_UDP_L4, before = VIRTIO_SIZE + in->link;
    bool is_ipv4 = flow.version == 4;
    uint32_t segment = told_length(packet, flow.version) - flow.size;
    uint32_t size = flow.size + segment * (count - 1) + told_length(end, flow.version) - flow.size;
    uint32_t begin = first * in->stride + in->before - in->link;
    slice_copy(head, VIRTIO_SIZE, slice_part(in->buffer, begin, in->link + flow.size));
    struct slice made = slice_part(head, before, flow.size);
    if (is_ipv4) {
        write16(made, 2, size);
        write16(made, 10, 0);
        write16(made, 10, check_ipv4(made));
    } else {
        write16(made, 4, size - IPV6_HEADER_SIZE);
    }
    uint32_t offset = 6;
    if (flow.protocol == PROTOCOL_TCP) {
        kind = is_ipv4 ? GSO_TCPV4 : GSO_TCPV6;
        write8(made, l4 + 13, read8(made, l4 + 13) | (read8(end, l4 + 13) & FLAG_PSH));
        offset = 16;
    } else {
        write16(made, l4 + 4, size - l4);
    }
    write16(made, l4 + offset, fold(pseudo_sum(made, &flow, size - l4)));
    write8(head, 0, NEEDS_CSUM);
    write8(head, 1, kind);
    write16_le(head, 2, in->link + flow.size);
    write16_le(head, 4, segment);
    write16_le(head, 6, in->link + l4);
    write16_le(head, 8, offset);
    *headers = flow.size;
    return before + flow.size;
}
