/* Segments of super-packets as the kernel's own segmentation would make them, like overlay/forwarding/offload/split.py:
 * CWR stays on the first, FIN and PSH on the last, IPv4 IDs count up. */
#include "packet.h"

enum { FLAG_FIN = 1, FLAG_PSH = 8, FLAG_CWR = 0x80 };

/* Write segment *number* of the super-packet *packet* at the beginning of *room*, with complete checksums; return its
 * size. */
uint32_t split_segment(struct slice room, struct slice packet, const struct flow *flow, uint32_t segment,
                       uint32_t number) {
    uint32_t l4 = flow->l4, payload = packet.size - flow->size, from = number * segment;
    bool is_last = payload - from <= segment, is_tcp = flow->protocol == PROTOCOL_TCP;
    uint32_t piece = is_last ? payload - from : segment, whole = flow->size + piece;
    struct slice head = slice_part(room, 0, whole);
    slice_copy(head, 0, slice_part(packet, 0, flow->size));
    slice_copy(head, flow->size, slice_part(packet, flow->size + from, piece));
    if (flow->version == 4) {
        write16(head, 2, whole);
        write16(head, 4, read16(packet, 4) + number);
        write16(head, 10, 0);
        write16(head, 10, check_ipv4(head));
    } else {
        write16(head, 4, whole - IPV6_HEADER_SIZE);
    }
    uint32_t check;
    if (is_tcp) {
        write32(head, l4 + 4, read32(packet, l4 + 4) + from);
        uint32_t cleared = (number ? FLAG_CWR : 0) | (is_last ? 0 : FLAG_FIN | FLAG_PSH);
        write8(head, l4 + 13, read8(head, l4 + 13) & ~cleared);
        check = l4 + 16;
    } else {
        write16(head, l4 + 4, whole - l4);
        check = l4 + 6;
    }
    write16(head, check, 0);
    uint32_t sum = fold(sum_bytes(slice_from(head, l4)) + pseudo_sum(head, flow, whole - l4)) ^ 0xFFFF;
    write16(head, check, is_tcp || sum ? sum : 0xFFFF); /* RFC 768: zero would mean that there is none */
    return whole;
}
