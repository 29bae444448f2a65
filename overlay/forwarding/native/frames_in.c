/* From the wire to the tap, as overlay/forwarding/ethernet/inbound.py has it: check the Ethernet source, join, write.
 * frames_out.c says what is ordinary, and who owns what. */
#include "bytes.h"
#include "native.h"
#include "packet.h"
#include "shared.h"

/* Have `before` reach up to the packets of the rows, if all have one Ethernet header; else return false (_joinable). */
bool frames_are_alike(struct in *in) {
    const uint8_t *first = in->buffer + HEADER_SIZE;
    if (in->rows < 2 || in->stride < OVERHEAD + FRAME_HEADER_SIZE || first[0] != TYPE_FRAME)
        return false;
    uint32_t link = link_of(first + FRAME_HEADER_SIZE, in->stride - OVERHEAD - FRAME_HEADER_SIZE);
    if (!link || in->last < FRAME_AT + link + TAG_SIZE)
        return false;
    for (uint32_t row = 1; row < in->rows; row++) {
        const uint8_t *each = first + (size_t)row * in->stride;
        if (each[0] != TYPE_FRAME || memcmp(each + FRAME_HEADER_SIZE, first + FRAME_HEADER_SIZE, link) != 0)
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
    uint32_t at = row * in->stride, size = (row == in->rows - 1 ? in->last : in->stride) - OVERHEAD;
    if (!size)
        return IN_DONE; /* a keepalive */
    uint8_t *payload = in->buffer + at + HEADER_SIZE, *frame = payload + FRAME_HEADER_SIZE;
    uint32_t padding = payload[1], length = 0, link = 0, ecn = in->arrivals[in->current].ecn;
    if (payload[0] == TYPE_FRAME && size >= FRAME_HEADER_SIZE + padding) { /* frames: parse; link_of() wants more */
        length = size - FRAME_HEADER_SIZE - padding;
        link = link_of(frame, length);
    }
    const struct known_station *sender = link ? stations_find(lane->state, frame + 6, peer, in->now) : NULL;
    if (sender == NULL || (ecn && !take_outer_ecn(frame + link, ecn)))
        return hand_back(in, IN_OPENED, keypair, at, size, 1);
    station_seen(sender, in->now);
    data_received(in, peer);
    counts_of(lane, peer)->rx_packets++;
    uint32_t mtu = (uint32_t)lane->state->mtu, path = (uint32_t)peer->path->mtu;
    clamp_syn(frame + link, length - link, (path < mtu ? path : mtu) - FRAME_HEADER_SIZE - link, false);
    uint8_t *begin = frame - VIRTIO_SIZE;
    memset(begin, 0, VIRTIO_SIZE); /* complete as it stands */
    struct iovec part = {begin, VIRTIO_SIZE + length};
    write_tun(lane, peer, &part, 1);
    return IN_DONE;
}

/* Write the super-frame that *count* rows from *first* on make. */
enum in_result frame_deliver_run(struct lane *lane, uint32_t first, uint32_t count) {
    struct in *in = &lane->in;
    struct peer *peer = in->keypair->peer;
    const uint8_t *frame = in->buffer + (size_t)first * in->stride + FRAME_AT;
    const struct known_station *sender = stations_find(lane->state, frame + 6, peer, in->now);
    if (sender == NULL)
        return hand_back(in, IN_RUN, in->keypair, first, (in->rows - 1) * in->stride + in->last, count);
    station_seen(sender, in->now);
    counts_of(lane, peer)->rx_packets += count;
    data_received(in, peer);
    write_run(lane, peer, first, count);
    return IN_DONE;
}
