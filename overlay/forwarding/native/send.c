/* Sends of a drain, like overlay/forwarding/underlay/sender.py and flows.py: queues, and refused sends. */
#include "atomics.h"
#include "native.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>

#define FLOW_OF(marks) ((marks) >> MARK_FLOW_SHIFT)

/* Return the socket that a send with *marks* leaves from, if not from the first (sender: _spread); NULL if unknown. */
static const struct udp *spread(const struct udp *first, uint32_t marks) {
    uint32_t flow = FLOW_OF(marks);
    if (!flow || first == NULL)
        return first;
    return first->spread_count ? first->spread[flow % (uint32_t)first->spread_count] : NULL;
}

/* Return whether datagrams may leave for *peer* now; otherwise Python must decide. */
bool may_send(const struct state *state, const struct peer *peer, uint32_t marks) {
    if (!peer->endpoint_size || peer->is_held || !state->segments || !is_open(peer->local->udp))
        return false;
    const struct udp *udp = spread(peer->local->udp, marks);
    return is_open(udp) && !udp->has_shares && udp->discovery != NULL && udp->discovery->omits == peer->path->omits;
}

static bool is_raw(const struct peer *peer) {
    return peer->tunnel != NULL && peer->tunnel->layout && peer->tunnel->protocols[0] != PROTOCOL_UDP;
}

/* Send datagrams of *size* bytes except the last, which are in *parts*, with these marks in the outer header. */
static void send_parts(struct lane *lane, struct peer *peer, struct iovec *parts, int count, uint32_t size,
                       uint32_t marks) {
    struct out *out = &lane->out;
    const struct local_end *local = peer->local;
    uint8_t control[CMSG_SPACE(32) + 2 * CMSG_SPACE(4) + CMSG_SPACE(2)];
    struct slice room = slice_of(control, sizeof control);
    uint32_t end = 0;
    int64_t total = 0;
    request_look(lane, peer, spread(local->udp, marks), marks);
    for (int i = 0; i < count; i++)
        total += slice_of_part(parts, (size_t)count, (size_t)i).size;
    if (local->source_size)
        end = add_control(room, end, local->source_level, local->source_kind, local->source,
                          (uint32_t)local->source_size);
    int tos = (int)(marks & MARK_TOS), ttl = (int)(marks >> MARK_TTL_SHIFT & 0xFF);
    bool is_ipv4 = peer->endpoint.any.sa_family == AF_INET;
    int level = is_ipv4 ? IPPROTO_IP : IPPROTO_IPV6;
    if (tos)
        end = add_control(room, end, level, is_ipv4 ? IP_TOS : IPV6_TCLASS, &tos, sizeof tos);
    if (ttl)
        end = add_control(room, end, level, is_ipv4 ? IP_TTL : IPV6_HOPLIMIT, &ttl, sizeof ttl);
    if (total > size) {
        uint16_t segment = (uint16_t)size;
        end = add_control(room, end, IPPROTO_UDP, UDP_SEGMENT, &segment, sizeof segment);
    }
    struct msghdr message = {
        .msg_name = &peer->endpoint,
        .msg_namelen = peer->endpoint_size,
        .msg_iov = parts,
        .msg_iovlen = (size_t)count,
        .msg_control = end ? control : NULL,
        .msg_controllen = end,
    };
    const struct udp *udp = spread(local->udp, marks);
    if (peer->is_held || is_refused(out, peer)) /* held since this was sealed, in a drain that an edge interrupted */
        refuse(out, peer, parts, count, size, marks, 0);
    else if (lane->io->sendmsg(udp == NULL ? -1 : udp->fd, &message, 0) < 0)
        refuse(out, peer, parts, count, size, marks, errno);
    else
        counts_of(lane, peer)->tx_bytes += total;
}

static void send_bytes(struct lane *lane, struct peer *peer, struct slice bytes, uint32_t size, uint32_t marks) {
    struct iovec part = iovec_of(bytes);
    send_parts(lane, peer, &part, 1, size, marks);
}

/* Send the datagrams in *queue*; neighbours in the arena become one part. */
static void flush_queue(struct lane *lane, struct queue *queue) {
    struct iovec parts[MAXIMUM_PENDING];
    struct slice arena = lane->out.arena;
    int count = 0;
    uint32_t end = 0; /* of the last part */
    if (is_raw(queue->peer)) {
        for (uint32_t i = 0; i < queue->count; i++)
            parts[i] = iovec_of(slice_part(arena, queue->offset[i], queue->size[i]));
        if (queue->count)
            raw_send(lane, queue->peer, &parts, queue->count, queue->marks);
        queue->count = 0;
        return;
    }
    for (uint32_t i = 0; i < queue->count; i++) {
        struct slice datagram = slice_part(arena, queue->offset[i], queue->size[i]);
        if (count && queue->offset[i] == end)
            parts[count - 1].iov_len += datagram.size;
        else
            parts[count++] = iovec_of(datagram);
        end = queue->offset[i] + queue->size[i];
    }
    if (count)
        send_parts(lane, queue->peer, parts, count, queue->first, queue->marks);
    queue->count = 0;
}

void flush(struct lane *lane) {
    struct out *out = &lane->out;
    for (uint32_t i = 0; i < out->queue_count; i++)
        flush_queue(lane, &out->queues[i]);
    out->queue_count = 0;
}

static struct queue *queue_of(struct out *out, const struct peer *peer, uint32_t marks) {
    for (uint32_t i = out->queue_count; i-- > 0;)
        if (out->queues[i].peer == peer && FLOW_OF(out->queues[i].marks) == FLOW_OF(marks))
            return &out->queues[i];
    return NULL;
}

/* Send the datagrams that wait for *peer* in the flow of *marks*. */
void flush_flow(struct lane *lane, const struct peer *peer, uint32_t marks) {
    struct queue *queue = queue_of(&lane->out, peer, marks);
    if (queue != NULL)
        flush_queue(lane, queue);
}

void flush_peer(struct lane *lane, const struct peer *peer) { flush_flow(lane, peer, 0); }

/* Add a datagram of the arena to the others of its peer and flow that can leave in the same call. */
void enqueue(struct lane *lane, struct peer *peer, uint32_t at, uint32_t size, uint32_t marks) {
    struct out *out = &lane->out;
    struct queue *queue = queue_of(out, peer, marks);
    if (queue == NULL) {
        queue = &out->queues[out->queue_count++]; /* at most one for each packet of a batch */
        queue->peer = peer;
        queue->count = 0;
        queue->marks = marks;
    }
    if (queue->count) {
        if (is_raw(peer)) {
            if (marks != queue->marks || queue->count >= MAXIMUM_PENDING)
                flush_queue(lane, queue);
        } else if (queue->is_closed || size > queue->first || marks != queue->marks || queue->count >= MAXIMUM_PENDING ||
            (queue->count + 1) * queue->first > MAXIMUM_PENDING_BYTES)
            flush_queue(lane, queue);
        else if (size < queue->first)
            queue->is_closed = true;
    }
    if (!queue->count) {
        queue->first = size;
        queue->marks = marks;
        queue->is_closed = false;
    }
    queue->offset[queue->count] = at;
    queue->size[queue->count++] = size;
}

/* Send *rows*, datagrams of *size* bytes except the last, in as few sends as the kernel takes, of nearly equal
 * counts. */
void send_evenly(struct lane *lane, struct peer *peer, struct slice rows, uint32_t size, uint32_t marks) {
    if (is_raw(peer)) {
        raw_send_evenly(lane, peer, rows, size, marks);
        return;
    }
    uint32_t total = rows.size, count = (total + size - 1) / size, sends = sends_of(count, size);
    for (uint32_t part = 0; part < sends; part++) {
        uint32_t from = count * part / sends * size, to = count * (part + 1) / sends * size;
        send_bytes(lane, peer, slice_part(rows, from, (to < total ? to : total) - from), size, marks);
    }
}
