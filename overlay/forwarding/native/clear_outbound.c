/* From the tun to the wire in the clear, like overlay/forwarding/clear/outbound.py, with a prefix before each packet;
 * and from the tap, like overlay/forwarding/ethernet/outbound.py, with a header before each frame. */
#include "atomics.h"
#include "packet.h"

_Static_assert(VXLAN_SIZE + MOST_LINK <= PREFIX_BYTES && GENEVE_SIZE + MOST_LINK <= PREFIX_BYTES, "see clear_forward_frame()");

enum { ROUNDS = 8 }; /* encap.gre */
#define QUARTER ((uint64_t)1 << 30)

/* Write the fields that differ from payload to payload into *payload*, whose packet is final, and count it (encap.gre:
 * Finisher). */
static void finish(struct tunnel *tunnel, struct slice payload) {
    if (!tunnel->number_at && !tunnel->has_checksum)
        return;
    uint64_t sent = tunnel->sent++;
    if (tunnel->number_at)
        write32(payload, tunnel->number_at, (uint32_t)(sent < ROUNDS ? sent * QUARTER : sent - ROUNDS));
    if (tunnel->has_checksum)
        write16(payload, GRE_SIZE, fold(sum_bytes(payload)) ^ 0xFFFF);
}

/* Send a super-packet as a train of payloads, *prefix* before each packet, if its segments fit *mtu*. */
static enum verdict forward_segments(struct lane *lane, struct peer *peer, struct slice packet,
                                     const struct offload *offload, struct slice prefix, uint32_t mtu,
                                     uint32_t marks) {
    uint32_t segment = offload->segment, before = prefix.size, length = packet.size;
    struct flow flow;
    if (!flow_of(packet, &flow) || flow.l4 != offload->csum_start || !segment || length <= flow.size ||
        (offload->gso_type & ~(uint32_t)GSO_ECN) != gso_type_of(&flow))
        return NOT_ORDINARY;
    if (length > mtu && flow.size + segment > mtu)
        return NOT_ORDINARY;
    uint32_t count = (length - flow.size + segment - 1) / segment, size = before + flow.size + segment;
    if (count > TRAIN_MESSAGES || count * ((size + 3) / 4 * 4) > TRAIN_BUFFER)
        return NOT_ORDINARY;
    uint32_t total = 0;
    for (uint32_t number = 0; number < count; number++) {
        struct slice row = slice_from(lane->out.train, total);
        slice_copy(row, 0, prefix);
        uint32_t whole = before + split_segment(slice_from(row, before), packet, &flow, segment, number);
        finish(peer->tunnel, slice_part(row, 0, whole));
        total += whole;
    }
    flush_flow(lane, peer, marks);
    send_evenly(lane, peer, slice_part(lane->out.train, 0, total), size, marks);
    counts_of(lane, peer)->tx_packets += count;
    return FORWARDED;
}

/* Send the packet of *length* bytes whose room in the arena begins at *at*. */
enum verdict clear_forward(struct lane *lane, struct peer *peer, uint32_t at, uint32_t length, uint32_t ecn) {
    struct out *out = &lane->out;
    const struct state *state = lane->state;
    struct tunnel *tunnel = peer->tunnel;
    struct unsealed *unsealed = peer->unsealed;
    struct slice packet = slice_part(out->arena, at + HEADER_SIZE, length);
    bool is_ipv4 = version_of(packet) == 4;
    uint32_t mtu = (uint32_t)peer->path->mtu, marks = ecn, ttl = read8(packet, is_ipv4 ? 8 : 7);
    struct offload offload = offload_of(slice_part(out->arena, at + VIRTIO_AT, VIRTIO_SIZE));
    if (!ttl || out->now >= peer->path->due || tells_mtu(packet))
        return NOT_ORDINARY;
    if (tunnel->number_at && lane->is_wanted != NULL)
        return NOT_ORDINARY; /* parallel lanes would send numbers in a different order than they take them */
    bool is_raw = tunnel->protocols[0] != PROTOCOL_UDP;
    if (is_raw && is_ipv4)
        marks = read8(packet, 1) | (read8(packet, 6) & 0x40 ? (uint32_t)MARK_WHOLE : 0); /* underlay.outer_header */
    else if (is_raw)
        marks = ((uint32_t)read8(packet, 0) << 4 & 0xF0) | read8(packet, 1) >> 4 | MARK_WHOLE | MARK_IPV6;
    if (state->inherits_ttl)
        marks |= ttl << MARK_TTL_SHIFT;
    if (tunnel->flows)
        marks |= hash_flow(packet) % tunnel->flows << MARK_FLOW_SHIFT;
    if (is_raw ? !raw_may_send(peer, marks) : !may_send(state, peer, marks))
        return NOT_ORDINARY;
    bool is_partial = offload.flags & NEEDS_CSUM;
    struct slice prefix = slice_part(slice_of(tunnel->prefix[!is_ipv4], PREFIX_BYTES), 0, tunnel->prefix_size);
    if (offload.gso_type) {
        if (forward_segments(lane, peer, packet, &offload, prefix, mtu, marks) == NOT_ORDINARY)
            return NOT_ORDINARY;
    } else if (length > mtu ||
               (is_partial && (offload.csum_start < 20 || offload.csum_start + offload.csum_offset + 2 > length))) {
        return NOT_ORDINARY;
    } else {
        clamp_syn(packet, mtu < (uint32_t)state->mtu ? mtu : (uint32_t)state->mtu, is_partial);
        if (is_partial)
            complete(packet, &offload);
        uint32_t start = HEADER_SIZE;
        if (prefix.size > start) { /* there is room for a tag after the packet */
            slice_move(out->arena, at + prefix.size, packet);
            start = prefix.size;
        }
        uint32_t begin = at + start - prefix.size;
        struct slice payload = slice_part(out->arena, begin, prefix.size + length);
        slice_copy(payload, 0, prefix);
        finish(tunnel, payload);
        out->at = at + start + length;
        enqueue(lane, peer, begin, payload.size, marks);
        counts_of(lane, peer)->tx_packets++;
    }
    if (out->now >= unsealed->segment_limit_ends)
        unsealed->segment_limit = WIDE;
    return FORWARDED;
}

/* Send the frame of a tap whose room in the arena begins at *at*: *link* bytes, and the packet of *length* bytes that
 * *offload* describes (_send_clear).  A frame that is too large for the path is sent nevertheless, as by any bridge. */
enum verdict clear_forward_frame(struct lane *lane, struct peer *peer, uint32_t at, uint32_t link, uint32_t length,
                                 const struct offload *offload, uint32_t marks) {
    struct out *out = &lane->out;
    const struct tunnel *tunnel = peer->tunnel;
    struct slice frame = slice_part(out->arena, at + FRAME_AT, link + length), packet = slice_from(frame, link);
    uint32_t header = tunnel->prefix_size - ETHERNET_SIZE; /* the part before a frame, without the frame's own header */
    if (tunnel->layout != LAYOUT_VXLAN && tunnel->layout != LAYOUT_GENEVE)
        return NOT_ORDINARY;
    if (lane->state->inherits_ttl)
        marks |= (uint32_t)read8(packet, version_of(packet) == 4 ? 8 : 7) << MARK_TTL_SHIFT;
    if (tunnel->flows)
        marks |= hash_flow(packet) % tunnel->flows << MARK_FLOW_SHIFT;
    if (out->now >= peer->path->due || !may_send(lane->state, peer, marks))
        return NOT_ORDINARY;
    if (offload->gso_type) {
        uint8_t bytes[PREFIX_BYTES];
        struct slice prefix = slice_part(slice_of(bytes, sizeof bytes), 0, header + link);
        slice_put(prefix, 0, tunnel->prefix[0], header);
        slice_copy(prefix, header, slice_part(frame, 0, link));
        return forward_segments(lane, peer, packet, offload, prefix, UINT32_MAX, marks);
    }
    bool is_partial = offload->flags & NEEDS_CSUM;
    if (is_partial && (offload->csum_start < 20 || offload->csum_start + offload->csum_offset + 2 > length))
        return NOT_ORDINARY;
    uint32_t mtu = (uint32_t)lane->state->mtu, path = (uint32_t)peer->path->mtu;
    clamp_syn(packet, (path < mtu ? path : mtu) - FRAME_HEADER_SIZE - link, is_partial);
    if (is_partial)
        complete(packet, offload);
    slice_put(out->arena, at + FRAME_AT - header, tunnel->prefix[0], header);
    out->at = at + FRAME_AT + link + length;
    enqueue(lane, peer, at + FRAME_AT - header, header + link + length, marks);
    counts_of(lane, peer)->tx_packets++;
    return FORWARDED;
}
