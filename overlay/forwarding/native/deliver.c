/* The common parts of all inbound paths: moments and counters, the write into the device, the return to Python. */
#include "atomics.h"
#include "packet.h"

#include <errno.h>

void heard(struct lane *lane, struct peer *peer, uint32_t size) {
    struct contact *contact = peer->contact;
    counts_of(lane, peer)->rx_bytes += size;
    set_time(&contact->last_received, lane->in.now);
    set_time(&contact->last_traffic, lane->in.now);
    set_time(&contact->unanswered_since, 0);
}

/* Note that a payload that is not a keepalive came (liveness.data_received). */
void data_received(struct in *in, struct peer *peer) {
    struct contact *contact = peer->contact;
    if (get_time(&contact->owed_since) == 0) {
        set_time(&contact->owed_since, in->now);
        if (!(contact->armed & ARMED_ANSWER))
            in->edges |= EDGE_ANSWER;
    }
}

void write_tun(struct lane *lane, struct peer *peer, const struct iovec *parts, int count) {
    if (lane->io->writev(lane->tun_out, parts, count) < 0)
        record_unwritten(lane, peer, errno == EAGAIN ? DROP_TUN_FULL : DROP_TUN_REFUSED, parts, count);
}

/* Write the super-packet of the *count* rows from *first* on, for the kernel to finish. */
void write_run(struct lane *lane, struct peer *peer, uint32_t first, uint32_t count) {
    struct in *in = &lane->in;
    uint8_t head[VIRTIO_SIZE + MOST_LINK + 120];
    uint32_t headers, size = join_head(in, first, count, slice_of(head, sizeof head), &headers);
    struct iovec parts[1 + MAXIMUM_JOINED];
    parts[0] = (struct iovec){head, size};
    for (uint32_t i = 0; i < count; i++) {
        struct slice packet = slice_from(row_of(in, first + i), in->before);
        uint32_t length = version_of(packet) == 4 ? read16(packet, 2) : IPV6_HEADER_SIZE + read16(packet, 4);
        parts[1 + i] = iovec_of(slice_part(packet, headers, length - headers));
    }
    write_tun(lane, peer, parts, 1 + (int)count);
}

enum in_result hand_back(struct in *in, enum in_result how, struct keypair *keypair, uint32_t at, uint32_t size,
                         uint32_t count) {
    in->back_keypair = keypair;
    in->back_at = at;
    in->back_size = size;
    in->back_count = count;
    return how;
}
