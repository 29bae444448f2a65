/* Drops: their numbers, for Python to add up, and the packets, for captures (forwarding/captures.py: Captures.dropped,
 * take_captured).
 *
 * No packet is kept unless a capture runs, and no more than CAPTURED_PACKETS until Python takes them: a lane does not
 * wait for that. */
#include "native.h"

/* Return where to keep a packet; NULL if there is no capture, or no room.  Python may set the flag meanwhile. */
static struct dropped *room_for(struct lane *lane, int64_t count) {
    if (!__atomic_load_n(&lane->captures_drops, __ATOMIC_RELAXED))
        return NULL;
    if (lane->captured_count == CAPTURED_PACKETS) {
        lane->missed += count;
        return NULL;
    }
    return &lane->captured[lane->captured_count++];
}

static void fill(struct dropped *dropped, struct peer *peer, enum reason reason, int64_t count, enum what what) {
    dropped->peer = peer;
    dropped->reason = reason;
    dropped->what = what;
    dropped->count = count;
    dropped->length = dropped->size = 0;
}

/* Count a drop, for Python to add up when the drain returns.
 *
 * There is always room.  A drain checks whether DROPS_AT_ONCE wait before it receives.  Until its next check it handles
 * the gathered rows and the rows after them, each of one peer or of none, and may give up every waiting unit; or it
 * handles a batch of a raw socket, each packet of which is written once. */
void count_drop(struct lane *lane, struct peer *peer, enum reason reason, int64_t count) {
    for (uint32_t i = lane->drop_count; i-- > 0;) {
        struct drop *drop = &lane->drops[i];
        if (drop->peer == peer && drop->reason == reason) {
            drop->count += count;
            return;
        }
    }
    if (lane->drop_count < MOST_DROPS)
        lane->drops[lane->drop_count++] = (struct drop){peer, reason, count};
}

/* Count *count* drops, one of which is the packet or datagram *bytes*. */
void record_packet(struct lane *lane, struct peer *peer, enum reason reason, int64_t count, enum what what,
                   struct slice bytes) {
    count_drop(lane, peer, reason, count);
    struct dropped *dropped = room_for(lane, count);
    if (dropped == NULL)
        return;
    fill(dropped, peer, reason, count, what);
    dropped->length = bytes.size;
    dropped->size = bytes.size < CAPTURED_BYTES ? bytes.size : CAPTURED_BYTES;
    slice_copy(slice_of(dropped->bytes, sizeof dropped->bytes), 0, slice_part(bytes, 0, dropped->size));
}

/* Count a drop whose packet is not available: see count_drop(). */
void record_drop(struct lane *lane, struct peer *peer, enum reason reason, int64_t count) {
    record_packet(lane, peer, reason, count, NOTHING, no_bytes());
}

/* Count a packet, *parts* with the virtio header first, that could not be written to the tun. */
void record_unwritten(struct lane *lane, struct peer *peer, enum reason reason, const struct iovec *parts, int count) {
    count_drop(lane, peer, reason, 1);
    struct dropped *dropped = room_for(lane, 1);
    if (dropped == NULL)
        return;
    fill(dropped, peer, reason, 1, PACKET);
    uint32_t skip = VIRTIO_SIZE;
    for (int i = 0; i < count; i++) {
        struct slice bytes = slice_of_part(parts, (size_t)count, (size_t)i);
        uint32_t skipped = bytes.size < skip ? bytes.size : skip, left = bytes.size - skipped;
        skip -= skipped;
        uint32_t room = CAPTURED_BYTES - dropped->size, kept = left < room ? left : room;
        slice_copy(slice_of(dropped->bytes, sizeof dropped->bytes), dropped->size, slice_part(bytes, skipped, kept));
        dropped->size += kept;
        dropped->length += left;
    }
}
