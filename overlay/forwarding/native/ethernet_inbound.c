/* From the wire to the tap, like overlay/forwarding/ethernet/inbound.py: check the Ethernet source, join, write.
 * ethernet_outbound.c says what is ordinary, and who owns what. */
#include "atomics.h"
#include "packet.h"

/* Make `before` reach up to the packets of the rows if all have the same Ethernet header; otherwise return false
 * (_joinable). */
bool frames_are_alike(struct in *in) {
    struct slice first = row_of(in, 0);
    if (in->rows < 2 || in->stride < OVERHEAD + FRAME_HEADER_SIZE || read8(first, HEADER_SIZE) != TYPE_FRAME)
        return false;
    uint32_t link = link_of(slice_part(first, FRAME_AT, in->stride - OVERHEAD - FRAME_HEADER_SIZE));
    if (!link || in->last < FRAME_AT + link + TAG_SIZE)
        return false;
    for (uint32_t row = 1; row < in->rows; row++) {
        struct slice each = row_of(in, row);
        if (read8(each, HEADER_SIZE) != TYPE_FRAME || !slice_same_at(each, first, FRAME_AT, link))
            return false;
    }
    in->before = FRAME_AT + link;
    in->link = link;
    return true;
}

/* Write the frame in the opened payload of *row* (deliver, _admit). */
enum in_result frame_deliver(struct lane *lane, uint32_t row) {
    struct in *in = &lane->in;
    struct keypair *keypair = in->keypair;
    struct peer *peer = keypair->peer;
    uint32_t at = row_at(in, row), size = row_size(in, row) - OVERHEAD;
    if (!size)
        return IN_DONE; /* a keepalive */
    struct slice payload = slice_part(in->buffer, at + HEADER_SIZE, size), frame = slice_part(payload, 0, 0);
    uint32_t padding = read8(payload, 1), link = 0, ecn = in->arrivals[in->current].ecn;
    if (read8(payload, 0) == TYPE_FRAME && size >= FRAME_HEADER_SIZE + padding) { /* frames: parse */
        frame = slice_part(payload, FRAME_HEADER_SIZE, size - FRAME_HEADER_SIZE - padding);
        link = link_of(frame);
    }
    struct slice packet = slice_from(frame, link);
    const struct known_station *sender = link ? stations_find(lane->state, source_mac(frame), peer, in->now) : NULL;
    if (sender == NULL || (ecn && !take_outer_ecn(packet, ecn)))
        return hand_back(in, IN_OPENED, keypair, at, size, 1);
    station_seen(sender, in->now);
    data_received(in, peer);
    counts_of(lane, peer)->rx_packets++;
    uint32_t mtu = (uint32_t)lane->state->mtu, path = (uint32_t)peer->path->mtu;
    clamp_syn(packet, (path < mtu ? path : mtu) - FRAME_HEADER_SIZE - link, false);
    struct slice written = slice_part(in->buffer, at + FRAME_AT - VIRTIO_SIZE, VIRTIO_SIZE + frame.size);
    slice_clear(slice_part(written, 0, VIRTIO_SIZE)); /* complete as it stands */
    struct iovec part = iovec_of(written);
    write_tun(lane, peer, &part, 1);
    return IN_DONE;
}

/* Write the super-frame of the *count* rows from *first* on. */
enum in_result frame_deliver_run(struct lane *lane, uint32_t first, uint32_t count) {
    struct in *in = &lane->in;
    struct peer *peer = in->keypair->peer;
    struct slice frame = slice_from(row_of(in, first), FRAME_AT);
    const struct known_station *sender = stations_find(lane->state, source_mac(frame), peer, in->now);
    if (sender == NULL)
        return hand_back(in, IN_RUN, in->keypair, first, rows_end(in), count);
    station_seen(sender, in->now);
    counts_of(lane, peer)->rx_packets += count;
    data_received(in, peer);
    write_run(lane, peer, first, count);
    return IN_DONE;
}
