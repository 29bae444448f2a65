/* Segments of super-packets as the kernel's own segmentation would have made them, as overlay/forwarding/offload/split.py
 * cuts them: CWR stays on the first, FIN and PSH on the last, IPv4 IDs count up. */
#include "bytes.h"
#include "packet.h"

enum { FLAG_FIN = 1, FLAG_PSH = 8, FLAG_CWR = 0x80 };

/* Write segment *number* of the super-packet of *length* bytes at *head*, its checksums complete; return its size. */
uint32_t split_segment(uint8_t *head, const uint8_t *packet, uint32_t length, const struct flow *flow, uint32_t segment,
                       uint32_t number) {
    uint32_t l4 = flow->l4, payload = length - flow->size, from = number * segment;
    bool is_last = payload - from <= segment, is_tcp = flow->protocol == PROTOCOL_TCP;
    uint32_t piece = is_last ? payload - from : segment, whole = flow->size + piece;
    memcpy(head, packet, flow->size);
    memcpy(head + flow->size, packet + flow->size + from, piece);
    if (flow->version == 4) {
        put16(head + 2, whole);
        put16(head + 4, get16(packet + 4) + number);
        put16(head + 10, 0);
        put16(head + 10, check_ipv4(head));
    } else {
        put16(head + 4, whole - IPV6_HEADER_SIZE);
    }
    uint8_t *check;
    if (is_tcp) {
        put32(head + l4 + 4, get32(packet + l4 + 4) + from);
        head[l4 + 13] &= (uint8_t) ~((number ? FLAG_CWR : 0) | (is_last ? 0 : FLAG_FIN | FLAG_PSH));
        check = head + l4 + 16;
    } else {
        put16(head + l4 + 4, whole - l4);
        check = head + l4 + 6;
    }
    put16(check, 0);
    uint32_t sum = fold(sum_bytes(head + l4, whole - l4) + pseudo_sum(head, flow, whole - l4)) ^ 0xFFFF;
    put16(check, is_tcp || sum ? sum : 0xFFFF); /* RFC 768: zero would say that there is none */
    return whole;
}
