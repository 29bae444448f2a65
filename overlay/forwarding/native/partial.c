/* Packets that a kernel has left unfinished, like overlay/forwarding/offload/partial.py. */
#include "packet.h"

enum { FLAG_CWR = 0x80, TCP_CSUM_OFFSET = 16, UDP_CSUM_OFFSET = 6 };

/* Return the segment size of *payload* merged bytes, of at most *most* bytes each. */
static uint32_t segment_of_merged(struct unsealed *unsealed, const struct flow *flow, uint32_t payload, uint32_t most) {
    uint32_t count = (payload + most - 1) / most;
    if (payload % count == 0) {
        unsealed->segment_size = (int)(flow->size + payload / count);
        return payload / count;
    }
    int found = unsealed->segment_size - (int)flow->size;
    return found > 0 && (uint32_t)found <= most ? (uint32_t)found : most;
}

bool virtio_for(struct unsealed *unsealed, struct slice packet, uint32_t mtu, struct slice header) {
    uint32_t length = packet.size;
    struct flow flow;
    slice_clear(header); /* complete as it stands */
    if (!flow_of(packet, &flow))
        return true;
    bool is_tcp = flow.protocol == PROTOCOL_TCP;
    uint32_t offset = is_tcp ? TCP_CSUM_OFFSET : UDP_CSUM_OFFSET;
    if (read16(packet, flow.l4 + offset) != fold(pseudo_sum(packet, &flow, length - flow.l4)))
        return true;
    uint32_t limit = mtu;
    if (is_tcp && (uint32_t)unsealed->segment_limit < mtu)
        limit = (uint32_t)unsealed->segment_limit;
    if (length > limit) {
        if (!is_tcp || limit <= flow.size)
            return false;
        write8(header, 1, gso_type_of(&flow) | (read8(packet, flow.l4 + 13) & FLAG_CWR ? GSO_ECN : 0));
        write16_le(header, 4, segment_of_merged(unsealed, &flow, length - flow.size, limit - flow.size));
    }
    write8(header, 0, NEEDS_CSUM);
    write16_le(header, 2, flow.size);
    write16_le(header, 6, flow.l4);
    write16_le(header, 8, offset);
    return true;
}
