/* The common parts of sends over UDP and over raw sockets: open sockets, refused sends, and how full buffers are. */
#include "native.h"

#include <errno.h>
#include <math.h>
#include <sys/ioctl.h>

enum {
    SEND_QUEUE = 0x5411,            /* SIOCOUTQ (linux/sockios.h): bytes that wait to be sent */
    LEAST_BUFFER = 2 * 1024 * 1024, /* underlay.shares */
    CROWDED = 32,                   /* underlay.shares */
};

_Static_assert(REFUSED_AT_ONCE + TRAIN_MESSAGES + BATCH <= REFUSED_SENDS, "see refuse()");

bool is_open(const struct udp *udp) { return udp != NULL && udp->fd >= 0 && udp->closes_at == INFINITY; }

/* Keep a send that the kernel did not accept; Python holds it, sends it in another way, or counts it.
 *
 * There is always room.  A drain checks whether REFUSED_AT_ONCE wait before it reads.  Until its next check it makes
 * the sends of one train, which over a raw socket are as many as its packets, and one for each packet of the waiting
 * batch. */
void refuse(struct out *out, struct peer *peer, const struct iovec *parts, int count, uint32_t size, uint32_t marks,
            int error) {
    uint32_t total = 0;
    for (int i = 0; i < count; i++)
        total += slice_of_part(parts, (size_t)count, (size_t)i).size;
    if (out->refused_count == REFUSED_SENDS || out->refused_size + total > REFUSED_BYTES)
        return; /* the drain ends long before that */
    struct refused *refused = &out->refused[out->refused_count++];
    *refused = (struct refused){peer, out->refused_size, total, size, marks, error};
    for (int i = 0; i < count; i++) {
        struct slice bytes = slice_of_part(parts, (size_t)count, (size_t)i);
        slice_copy(out->refused_bytes, out->refused_size, bytes);
        out->refused_size += bytes.size;
    }
}

bool is_refused(const struct out *out, const struct peer *peer) {
    for (uint32_t i = 0; i < out->refused_count; i++)
        if (out->refused[i].peer == peer)
            return true;
    return false;
}

/* Return whether a send to *peer* was refused for another reason than lack of room. */
bool has_failed(const struct out *out, const struct peer *peer) {
    for (uint32_t i = 0; i < out->refused_count; i++) {
        int error = out->refused[i].error;
        if (out->refused[i].peer == peer && error && error != EAGAIN && error != ENOBUFS)
            return true;
    }
    return false;
}

/* Write a control message at *at* of *room*, and return where the next one begins. */
uint32_t add_control(struct slice room, uint32_t at, int level, int kind, const void *data, uint32_t size) {
    struct cmsghdr header = {.cmsg_len = CMSG_LEN(size), .cmsg_level = level, .cmsg_type = kind};
    struct slice message = slice_part(room, at, CMSG_SPACE(size));
    slice_clear(message);
    slice_put(message, 0, &header, sizeof header);
    slice_put(message, CMSG_LEN(0), data, size);
    return at + message.size;
}

/* Return whether so much waits to be sent from a socket that Python must examine it (underlay.shares). */
bool is_crowded(int fd) {
    int waiting = 0, size = 0;
    socklen_t length = sizeof size;
    return ioctl(fd, SEND_QUEUE, &waiting) == 0 && getsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, &length) == 0 &&
           size >= LEAST_BUFFER && waiting > size / CROWDED;
}

/* Now and then, make Python examine the queue of the socket that sends to *peer*, if it is long. */
void request_look(struct lane *lane, struct peer *peer, const struct udp *udp, uint32_t marks) {
    struct out *out = &lane->out;
    if (++out->sends % LOOK == 0 && udp != NULL && lane->io->is_crowded(udp->fd)) {
        out->look = peer;
        out->look_marks = marks;
    }
}

/* Return how many sends *count* datagrams of *size* bytes need, in nearly equal numbers (offload.split: parts). */
uint32_t sends_of(uint32_t count, uint32_t size) {
    uint32_t limit = TRAIN_BYTES / size;
    if (limit > TRAIN_COUNT)
        limit = TRAIN_COUNT;
    if (!limit)
        limit = 1;
    return (count + limit - 1) / limit;
}
