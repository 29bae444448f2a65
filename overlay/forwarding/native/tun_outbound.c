/* From the tun or tap to the wire, like overlay/forwarding/tun/outbound.py: read, look up, pass on.  seal.c seals. */
#include "atomics.h"
#include "packet.h"

#include <errno.h>

/* Return whether *packet*, for the address at which *peer* is reached, may be a datagram of this node (places:
 * is_own_datagram). */
static bool may_be_own(const struct peer *peer, struct slice packet) {
    const struct tunnel *tunnel = peer->tunnel;
    int protocol = read8(packet, version_of(packet) == 4 ? 9 : 6);
    if (tunnel == NULL || !tunnel->layout)
        return protocol == PROTOCOL_UDP;
    return protocol == tunnel->protocols[0] || protocol == tunnel->protocols[1];
}

static struct offload offload_before(const struct lane *lane, uint32_t at) {
    return offload_of(slice_part(lane->out.arena, at - VIRTIO_SIZE, VIRTIO_SIZE));
}

/* Send the packet of *length* bytes whose room in the arena begins at *at* to *peer*. */
static enum verdict forward_to(struct lane *lane, struct peer *peer, uint32_t at, uint32_t length,
                               struct slice destination, uint32_t marks) {
    struct slice packet = slice_part(lane->out.arena, at + HEADER_SIZE, length);
    bool is_endpoint = (int)destination.size == peer->place_size &&
                       slice_has_at(destination, 0, peer->place, destination.size);
    if (is_endpoint && may_be_own(peer, packet))
        return NOT_ORDINARY;
    if (peer->tunnel != NULL && peer->tunnel->layout)
        return clear_forward(lane, peer, at, length, marks);
    struct keypair *keypair = usable(lane, peer);
    if (keypair == NULL)
        return NOT_ORDINARY;
    marks |= lane_marks(keypair);
    static const struct lead none;
    struct offload offload = offload_before(lane, at + HEADER_SIZE);
    if (offload.gso_type)
        return send_segments(lane, peer, keypair, at + HEADER_SIZE, length, &offload, &none, marks);
    if (length > IPV6_MINIMUM_MTU && !peer->asking->is_worth_it)
        return NOT_ORDINARY;
    return send_single(lane, peer, keypair, at, length, &offload, &none, marks);
}

/* Send the packet of *flow* to its server, which may be this node (services: Vip.choose, Services.deliver). */
static enum verdict forward_flow(struct lane *lane, struct known_flow *flow, uint32_t at, uint32_t length,
                                 struct slice destination, uint32_t marks) {
    struct slice packet = slice_part(lane->out.arena, at + HEADER_SIZE, length);
    uint8_t before[IPV4_HEADER_SIZE];
    struct server *server = flow->server;
    uint32_t segment = offload_before(lane, at + HEADER_SIZE).segment;
    enum verdict verdict = FORWARDED;
    slice_copy(slice_of(before, sizeof before), 0, slice_part(packet, 0, sizeof before));
    if (server->dscp)
        set_dscp(packet, (uint32_t)server->dscp);
    if (server->peer->number == OWN) {
        struct iovec part = iovec_of(slice_part(lane->out.arena, at + VIRTIO_AT, VIRTIO_SIZE + length));
        write_tun(lane, NULL, &part, 1);
    } else {
        verdict = forward_to(lane, server->peer, at, length, destination, marks);
    }
    if (verdict == FORWARDED)
        flows_passed(flow, length, segment, lane->out.now);
    else
        slice_put(packet, 0, before, sizeof before); /* handed back unchanged */
    return verdict;
}

/* Send the packet whose virtio header is in the arena at *at* + 6; *size* covers both. */
static enum verdict forward(struct lane *lane, uint32_t at, uint32_t size) {
    struct state *state = lane->state;
    if (size < VIRTIO_SIZE + IPV4_HEADER_SIZE)
        return NOT_ORDINARY;
    uint32_t length = size - VIRTIO_SIZE, marks;
    struct slice packet = slice_part(lane->out.arena, at + HEADER_SIZE, length), destination;
    if (version_of(packet) == 4) {
        destination = slice_part(packet, 16, 4);
        marks = read8(packet, 1) & 3;
    } else if (version_of(packet) == 6 && length >= IPV6_HEADER_SIZE) {
        destination = slice_part(packet, 24, 16);
        marks = read8(packet, 1) >> 4 & 3;
    } else {
        return NOT_ORDINARY;
    }
    struct peer *peer = routes_find(state, destination);
    if (peer == NULL)
        return NOT_ORDINARY;
    if (peer != &virtual_address)
        return forward_to(lane, peer, at, length, destination, marks);
    struct known_flow *flow = flows_find(state, packet);
    return flow == NULL ? UNKNOWN : forward_flow(lane, flow, at, length, destination, marks);
}

/* Forward the packets of the tun, at most a batch.  After OUT_EDGE the next call continues the same go. */
enum out_result out_drain(struct lane *lane, double now) {
    struct out *out = &lane->out;
    if (!out->is_going) {
        out->is_going = true;
        out->at = out->taken = 0;
        out->has_begun = false;
        out->takes_one = pace_takes_one(out->pace, now);
    }
    out->now = now;
    out->edges = 0;
    bool is_tap = lane->state->carries_frames;
    uint32_t room = is_tap ? FRAME_ROOM : ROOM, virtio_at = is_tap ? FRAME_VIRTIO_AT : VIRTIO_AT;
    uint32_t most = is_tap ? FRAME_READ_BYTES : READ_BYTES;
    while (out->taken < (out->takes_one ? 1 : BATCH) && out->at + room <= ARENA_BYTES &&
           out->refused_size <= REFUSED_BYTES / 2 && out->refused_count < REFUSED_AT_ONCE && !is_wanted(lane)) {
        uint32_t at = out->at;
        struct slice read = slice_part(out->arena, at + virtio_at, most);
        ssize_t size = lane->io->read(lane->tun, read.bytes, read.size);
        if (size < 0 && errno != EAGAIN) {
            out->error = errno;
            flush(lane);
            out->is_going = false;
            return OUT_ERROR;
        }
        if (size <= 0)
            break;
        out->taken++;
        out->is_first = !out->has_begun;
        out->has_begun = out->has_begun || size - VIRTIO_SIZE <= lane->state->mtu; /* tun.outbound: _read_batch */
        enum verdict verdict = is_tap ? frame_forward(lane, at, (uint32_t)size) : forward(lane, at, (uint32_t)size);
        if (verdict != FORWARDED) {
            flush(lane);
            out->packet_at = at;
            out->packet_size = (uint32_t)size;
            if (verdict == UNKNOWN && !out->takes_one)
                return OUT_UNKNOWN; /* the next call continues the same go */
            out->is_going = false; /* Python does the rest of this go */
            return OUT_PACKET;
        }
        if (out->edges)
            return OUT_EDGE; /* sealed datagrams leave after what Python does now, as on the Python path */
    }
    flush(lane);
    if (!out->takes_one)
        pace_took(out->pace, out->taken);
    out->is_going = false;
    return OUT_DONE;
}
