/* From the tap to the wire, like overlay/forwarding/ethernet/outbound.py: find the destination, seal, send.
 *
 * Who owns what.  The bridge (ethernet/bridge.py) decides where stations are: it learns, moves and forgets them, and
 * this file only remembers its decisions.  The time at which a station was seen is only in the `struct station` inside
 * the bridge's own entry, which both paths write.  A frame is ordinary if it carries IP, its sender is known on this
 * side and its destination at a peer with a session, or in the clear.  ARP, anything that may be neighbour discovery,
 * and frames to groups or unknown stations are for Python. */
#include "packet.h"

/* Return whether *packet* may be a datagram of this node: the tap is bridged to the underlay (_is_own_datagram). */
static bool may_be_own(const struct state *state, struct slice packet) {
    bool is_ipv4 = version_of(packet) == 4;
    uint32_t ports = is_ipv4 ? (read8(packet, 0) & 15u) * 4 : IPV6_HEADER_SIZE;
    if (read8(packet, is_ipv4 ? 9 : 6) != PROTOCOL_UDP || packet.size < ports + 2)
        return false;
    uint32_t port = read16(packet, ports);
    return state->own_ports[port / 8] >> port % 8 & 1;
}

/* Send the frame whose virtio header is in the arena at *at* + 8; *size* covers both. */
enum verdict frame_forward(struct lane *lane, uint32_t at, uint32_t size) {
    struct state *state = lane->state;
    struct out *out = &lane->out;
    struct slice frame = slice_part(out->arena, at + FRAME_AT, size < VIRTIO_SIZE ? 0 : size - VIRTIO_SIZE);
    uint32_t link = link_of(frame);
    if (!link)
        return NOT_ORDINARY;
    struct slice packet = slice_from(frame, link);
    const struct known_station *sender = stations_find(state, source_mac(frame), NULL, out->now);
    struct peer *peer = stations_for(state, slice_part(frame, 0, 6), out->now);
    if (sender == NULL || peer == NULL || may_be_own(state, packet))
        return NOT_ORDINARY;
    station_seen(sender, out->now);
    struct offload offload = offload_of(slice_part(out->arena, at + FRAME_VIRTIO_AT, VIRTIO_SIZE));
    if (offload.csum_start < link && (offload.gso_type || offload.flags & NEEDS_CSUM))
        return NOT_ORDINARY;
    offload.csum_start -= link;
    uint32_t ecn = version_of(packet) == 4 ? read8(packet, 1) & 3u : read8(packet, 1) >> 4 & 3u;
    if (peer->tunnel != NULL && peer->tunnel->layout)
        return clear_forward_frame(lane, peer, at, link, packet.size, &offload, ecn);
    struct keypair *keypair = usable(lane, peer);
    if (keypair == NULL || (keypair->bulk != NULL && is_hello_due(out, peer, keypair->bulk)))
        return NOT_ORDINARY;
    struct lead lead = {.bytes = {TYPE_FRAME}, .size = FRAME_HEADER_SIZE + link};
    slice_copy(slice_of(lead.bytes, sizeof lead.bytes), FRAME_HEADER_SIZE, slice_part(frame, 0, link));
    uint32_t marks = lane_marks(keypair) | ecn;
    if (offload.gso_type)
        return send_segments(lane, peer, keypair, at + FRAME_AT + link, packet.size, &offload, &lead, marks);
    return send_single(lane, peer, keypair, at, packet.size, &offload, &lead, marks);
}
