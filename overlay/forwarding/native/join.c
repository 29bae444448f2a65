/* Which opened datagrams of one receive make super-packets, as overlay/forwarding/offload/join.py decides. */
#include "bytes.h"
#include "native.h"
#include "packet.h"

enum { FLAG_PSH = 8, FLAG_ACK = 16, FLAG_ECE = 64 };

struct segment { /* one row, as far as it is a segment of the first one's flow */
    const uint8_t *head;
    uint32_t payload;
    bool is_good;
};

static struct segment segment_of(const struct in *in, const struct flow *flow, const uint8_t *first, uint32_t row) {
    const uint8_t *head = in->buffer + (size_t)row * in->stride + in->before;
    uint32_t overhead = in->before + in->tag, room = in->stride - overhead;
    uint32_t own = row == in->rows - 1 ? in->last - overhead : room;
    uint32_t length = flow->version == 4 ? get16(head + 2) : IPV6_HEADER_SIZE + get16(head + 4);
    struct segment segment = {head, length - flow->size, false};
    if (own < flow->size || length <= flow->size || length > own || head[0] != first[0])
        return segment;
    if (flow->version == 4 && (head[6] != first[6] || head[7] != first[7] || head[9] != first[9]))
        return segment;
    if (flow->version == 6 && head[6] != first[6])
        return segment;
    uint32_t l4 = flow->l4;
    if (flow->protocol == PROTOCOL_TCP && head[l4 + 12] != first[l4 + 12])
        return segment;
    if (flow->protocol == PROTOCOL_UDP && (get16(head + l4 + 4) != length - l4 || !get16(head + l4 + 6)))
        return segment;
    if (flow->version == 4 && fold(sum_bytes(head, l4)) != 0xFFFF)
        return segment;
    /* What follows the packet in the row counts as well: it is padding, of zeros */
    segment.is_good = fold(sum_bytes(head + l4, own - l4) + pseudo_sum(head, flow, length - l4)) == 0xFFFF;
    return segment;
}

/* Return whether the headers of two segments are equal where they must be (join.py: _mask). */
static bool are_alike(const uint8_t *one, const uint8_t *other, const struct flow *flow) {
    uint32_t l4 = flow->l4;
    if (flow->version == 4) {
        if (one[0] != other[0] || one[1] != other[1] || memcmp(one + 6, other + 6, 4) != 0 ||
            memcmp(one + 12, other + 12, l4 - 12) != 0)
            return false;
    } else if (memcmp(one, other, 4) != 0 || memcmp(one + 6, other + 6, 34) != 0) {
        return false;
    }
    if (memcmp(one + l4, other + l4, 4) != 0)
        return false;
    if (flow->protocol == PROTOCOL_UDP)
        return true;
    return memcmp(one + l4 + 8, other + l4 + 8, 5) == 0 && !((one[l4 + 13] ^ other[l4 + 13]) & ~FLAG_PSH) &&
           memcmp(one + l4 + 14, other + l4 + 14, 2) == 0 &&
           memcmp(one + l4 + 18, other + l4 + 18, flow->size - l4 - 18) == 0;
}

static bool goes_on(const struct segment *before, const struct segment *after, const struct flow *flow) {
    uint32_t l4 = flow->l4;
    if (!before->is_good || !after->is_good || after->payload > before->payload ||
        !are_alike(before->head, after->head, flow))
        return false;
    if (flow->version == 4 && (uint16_t)(get16(after->head + 4) - get16(before->head + 4)) != 1)
        return false;
    if (flow->protocol == PROTOCOL_UDP)
        return true;
    return get32(after->head + l4 + 4) - get32(before->head + l4 + 4) == before->payload &&
           (after->head[l4 + 13] & ~(FLAG_PSH | FLAG_ECE)) == FLAG_ACK &&
           (before->head[l4 + 13] & ~FLAG_ECE) == FLAG_ACK;
}

/* Say in `runs` how many rows make one super-packet, at the first of each; false where all rows stand alone.
 *
 * Rows are joined where neither kernel nor receiver can tell (join.py: Rows.runs), at most MAXIMUM_JOINED in one, and
 * no more than one IP packet may have.  All rows are new, and longer than what stands around their packets. */
bool join_rows(struct in *in, bool joins_udp) {
    const uint8_t *first = in->buffer + in->before;
    uint32_t count = in->rows, overhead = in->before + in->tag, room = in->stride - overhead;
    uint32_t size = count == 1 ? in->last - overhead : room;
    struct flow flow;
    if (count < 2 || in->stride & 1 || size < 28 || !flow_of(first, size, &flow) || room < flow.size ||
        (flow.protocol == PROTOCOL_UDP && !joins_udp))
        return false;
    uint32_t length = flow.version == 4 ? get16(first + 2) : IPV6_HEADER_SIZE + get16(first + 4);
    if (length <= flow.size)
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

/* Write virtio header and headers of the super-packet that *count* rows from *first* on make; return their size.  An
 * Ethernet header of `link` bytes is one of them; *headers* gets the bytes of all before the payload in a row's packet. */
uint32_t join_head(const struct in *in, uint32_t first, uint32_t count, uint8_t *head, uint32_t *headers) {
    const uint8_t *packet = in->buffer + (size_t)first * in->stride + in->before;
    const uint8_t *end = packet + (size_t)(count - 1) * in->stride;
    struct flow flow;
    if (!flow_of(packet, in->stride - in->before - in->tag, &flow))
        return 0;
    uint32_t l4 = flow.l4, kind = GSO_UDP_L4;
    bool is_ipv4 = flow.version == 4;
    uint32_t length = is_ipv4 ? get16(packet + 2) : IPV6_HEADER_SIZE + get16(packet + 4);
    uint32_t last = is_ipv4 ? get16(end + 2) : IPV6_HEADER_SIZE + get16(end + 4);
    uint32_t segment = length - flow.size, size = flow.size + segment * (count - 1) + last - flow.size;
    uint8_t *made = head + VIRTIO_SIZE + in->link;
    memcpy(head + VIRTIO_SIZE, packet - in->link, in->link + flow.size);
    if (is_ipv4) {
        put16(made + 2, size);
        put16(made + 10, 0);
        put16(made + 10, check_ipv4(made));
    } else {
        put16(made + 4, size - IPV6_HEADER_SIZE);
    }
    uint32_t offset = 6;
    if (flow.protocol == PROTOCOL_TCP) {
        kind = is_ipv4 ? GSO_TCPV4 : GSO_TCPV6;
        made[l4 + 13] |= end[l4 + 13] & FLAG_PSH;
        offset = 16;
    } else {
        put16(made + l4 + 4, size - l4);
    }
    put16(made + l4 + offset, fold(pseudo_sum(made, &flow, size - l4)));
    head[0] = NEEDS_CSUM;
    head[1] = (uint8_t)kind;
    put16_le(head + 2, in->link + flow.size);
    put16_le(head + 4, segment);
    put16_le(head + 6, in->link + l4);
    put16_le(head + 8, offset);
    *headers = flow.size;
    return VIRTIO_SIZE + in->link + flow.size;
}
