/* From the wire to the tun, like overlay/forwarding/tun/inbound.py: open, check, join, write. */
#include "atomics.h"
#include "packet.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>

enum { ECT_1 = 1, CE = 3, FIRST_HANDSHAKE = 1, LAST_HANDSHAKE = 3 };
enum { ADDRESSED = 8 }; /* bytes of a message before its counter: type and receiver index */

/* Receiving */

/* Set *data* to the *size* bytes of a control message of *level* and *kind*; false if it is another message, or has
 * fewer bytes, because the kernel truncates a message without room. */
static bool tells(const struct cmsghdr *message, int level, int kind, size_t size, struct slice *data) {
    if (message->cmsg_level != level || message->cmsg_type != kind || message->cmsg_len < CMSG_LEN(size))
        return false;
    *data = slice_of(CMSG_DATA(message), size);
    return true;
}

/* Set *number* to the number in a control message of *level* and *kind*, in the order of the machine; false if it is
 * another message. */
bool tells_number(const struct cmsghdr *message, int level, int kind, int32_t *number) {
    struct slice data;
    if (!tells(message, level, kind, sizeof *number, &data))
        return false;
    slice_copy(slice_of(number, sizeof *number), 0, data);
    return true;
}

static void read_control(struct arrival *arrival, struct msghdr *message) {
    int32_t number = 0;
    struct slice data, received = slice_of(arrival->received, sizeof arrival->received);
    arrival->segment = arrival->ecn = 0;
    arrival->received_size = 0;
    for (struct cmsghdr *each = CMSG_FIRSTHDR(message); each != NULL; each = CMSG_NXTHDR(message, each)) {
        if (tells_number(each, IPPROTO_UDP, UDP_GRO, &number)) {
            arrival->segment = (uint16_t)number;
        } else if (tells(each, IPPROTO_IP, IP_TOS, 1, &data)) {
            arrival->ecn = read8(data, 0) & 3;
        } else if (tells_number(each, IPPROTO_IPV6, IPV6_TCLASS, &number)) {
            arrival->ecn = number & 3;
        } else if (tells(each, IPPROTO_IP, IP_PKTINFO, sizeof(struct in_pktinfo), &data)) {
            slice_copy(received, 0, slice_part(data, 4, 4)); /* the local address */
            arrival->received_size = 4;
        } else if (tells(each, IPPROTO_IPV6, IPV6_PKTINFO, 16, &data)) {
            slice_copy(received, 0, data);
            arrival->received_size = 16;
        }
    }
}

/* Receive after the gathered rows.  Return the size, or -1 like recvmsg(). */
static ssize_t receive(struct lane *lane, uint32_t at, struct arrival *arrival, bool *is_truncated) {
    struct in *in = &lane->in;
    struct iovec part = iovec_of(slice_part(in->buffer, at, RECEIVE_BYTES));
    memset(arrival->control, 0, sizeof arrival->control);
    memset(&arrival->source, 0, sizeof arrival->source);
    struct msghdr message = {
        .msg_name = &arrival->source,
        .msg_namelen = sizeof arrival->source,
        .msg_iov = &part,
        .msg_iovlen = 1,
        .msg_control = arrival->control,
        .msg_controllen = sizeof arrival->control,
    };
    ssize_t size = lane->io->recvmsg(in->udp->fd, &message, 0);
    if (size < 0)
        return size;
    *is_truncated = message.msg_flags & MSG_TRUNC;
    arrival->control_size = message.msg_controllen;
    arrival->source_size = message.msg_namelen;
    read_control(arrival, &message);
    return size;
}

static bool are_same(const struct arrival *one, const struct arrival *other) {
    return one->control_size == other->control_size && one->source_size == other->source_size &&
           memcmp(one->control, other->control, one->control_size) == 0 &&
           memcmp(&one->source, &other->source, one->source_size) == 0;
}

/* The sender */

static bool is_at_endpoint(const struct peer *peer, const struct arrival *arrival) {
    return peer->endpoint_size == arrival->source_size &&
           memcmp(&peer->endpoint, &arrival->source, arrival->source_size) == 0;
}

/* Return whether it came from the host of *peer*, from whatever port. */
static bool is_at_host(const struct peer *peer, const struct arrival *arrival) {
    const union address *one = &peer->endpoint, *other = &arrival->source;
    if (peer->endpoint_size != arrival->source_size || one->any.sa_family != other->any.sa_family)
        return false;
    if (one->any.sa_family == AF_INET)
        return one->v4.sin_addr.s_addr == other->v4.sin_addr.s_addr;
    return one->v6.sin6_scope_id == other->v6.sin6_scope_id &&
           memcmp(&one->v6.sin6_addr, &other->v6.sin6_addr, sizeof one->v6.sin6_addr) == 0;
}

/* Return whether messages under *keypair* now would change only counters and times. */
static bool is_ordinary(const struct in *in, const struct keypair *keypair) {
    const struct peer *peer = keypair->peer;
    const struct arrival *arrival = &in->arrivals[in->current];
    const struct local_end *local = peer->local;
    const struct slots *slots = peer->slots;
    const struct udp *udp = in->udp->sends_by != NULL ? in->udp->sends_by : in->udp;
    const struct keypair *session = keypair->session != NULL ? keypair->session : keypair;
    if (in->now >= keypair->reject_at || slots->settled != session || slots->current == NULL ||
        in->now >= slots->current->rekey_receive_at || peer->contact->is_silent)
        return false;
    bool is_there = session != keypair ? is_at_host(peer, arrival) : is_at_endpoint(peer, arrival);
    return local->udp == udp && is_there && local->received_size == arrival->received_size &&
           memcmp(local->received, arrival->received, (size_t)arrival->received_size) == 0;
}

/* Messages */

/* Write the packet in the opened payload of *row*. */
static enum in_result deliver(struct lane *lane, uint32_t row) {
    struct in *in = &lane->in;
    struct keypair *keypair = in->keypair;
    struct peer *peer = keypair->peer;
    uint32_t at = row_at(in, row), size = row_size(in, row) - OVERHEAD;
    if (!size)
        return IN_DONE; /* a keepalive */
    struct slice payload = slice_part(in->buffer, at + HEADER_SIZE, size);
    struct slice packet = slice_part(payload, 0, packet_length(payload));
    uint32_t ecn = in->arrivals[in->current].ecn;
    if (!packet.size || !is_from(lane, peer, packet) || (ecn && !take_outer_ecn(packet, ecn)))
        return hand_back(in, IN_OPENED, keypair, at, size, 1);
    data_received(in, peer);
    counts_of(lane, peer)->rx_packets++;
    uint32_t mtu = (uint32_t)lane->state->mtu, path = (uint32_t)peer->path->mtu;
    clamp_syn(packet, path < mtu ? path : mtu, false);
    struct slice written = slice_part(in->buffer, at + HEADER_SIZE - VIRTIO_SIZE, VIRTIO_SIZE + packet.size);
    slice_clear(slice_part(written, 0, VIRTIO_SIZE)); /* complete as it stands */
    struct iovec part = iovec_of(written);
    write_tun(lane, peer, &part, 1);
    return IN_DONE;
}

/* Deliver the super-packet of the *count* rows from *first* on. */
static enum in_result deliver_run(struct lane *lane, uint32_t first, uint32_t count) {
    struct in *in = &lane->in;
    struct peer *peer = in->keypair->peer;
    if (!is_from(lane, peer, slice_part(in->buffer, row_at(in, first) + HEADER_SIZE, in->stride - OVERHEAD)))
        return hand_back(in, IN_RUN, in->keypair, first, rows_end(in), count);
    counts_of(lane, peer)->rx_packets += count;
    data_received(in, peer);
    write_run(lane, peer, first, count);
    return IN_DONE;
}

/* Deliver the opened rows from `next` on; anything but IN_DONE is for Python, and the next call continues after it. */
static enum in_result deliver_messages(struct lane *lane) {
    struct in *in = &lane->in;
    while (in->next < in->fresh_count) {
        uint32_t row = in->fresh[in->next], count = in->is_joined ? in->runs[row] : 1;
        in->next += count;
        in->edges = 0;
        enum in_result result;
        if (lane->state->carries_frames)
            result = count > 1 ? frame_deliver_run(lane, row, count) : frame_deliver(lane, row);
        else
            result = count > 1 ? deliver_run(lane, row, count) : deliver(lane, row);
        if (result != IN_DONE)
            return result;
        if (in->edges)
            return hand_back(in, IN_EDGE, in->keypair, 0, 0, 0);
    }
    in->work = WORK_NONE;
    return IN_DONE;
}

/* Open the rows, all of one keypair. */
static enum in_result take_messages(struct lane *lane, struct keypair *keypair) {
    struct in *in = &lane->in;
    struct peer *peer = keypair->peer;
    uint32_t size = 0, ecn = in->arrivals[in->current].ecn;
    in->fresh_count = 0;
    pthread_mutex_lock(&keypair->receiving);
    for (uint32_t row = 0; row < in->rows; row++) {
        struct slice message = row_of(in, row);
        uint64_t counter = read64_le(message, 8);
        if (!aead_open(&keypair->open, counter, slice_from(message, HEADER_SIZE))) {
            record_packet(lane, peer, DROP_TRANSPORT_AUTH, 1, DATAGRAM, slice_part(message, 0, HEADER_SIZE));
        } else if (!window_accept(keypair->window, counter)) {
            record_packet(lane, peer, DROP_REPLAY, 1, PACKET, slice_part(message, HEADER_SIZE, message.size - OVERHEAD));
        } else {
            in->fresh[in->fresh_count++] = (uint16_t)row;
            size += message.size;
        }
    }
    pthread_mutex_unlock(&keypair->receiving);
    if (!in->fresh_count)
        return IN_DONE;
    heard(lane, peer, size);
    in->keypair = keypair;
    in->next = 0;
    in->work = WORK_MESSAGES;
    uint32_t end = rows_end(in) - TAG_SIZE;
    in->is_joined = in->fresh_count == in->rows && ecn != CE && ecn != ECT_1;
    if (in->is_joined) {
        slice_clear(slice_part(in->buffer, end, in->rows * in->stride - end));
        in->before = HEADER_SIZE;
        in->tag = TAG_SIZE;
        in->link = 0;
        in->is_joined = (!lane->state->carries_frames || frames_are_alike(in)) && join_rows(in, lane->state->joins_udp);
    }
    return deliver_messages(lane);
}

/* Any datagrams */

/* Return why a datagram cannot be valid; DROP_REASONS if it may be valid (forwarding.nonsense, tun.inbound:
 * take_one). */
static enum reason refusal(const struct lane *lane, struct slice datagram) {
    static const struct {
        uint32_t size;
        enum reason reason;
    } handshakes[] = {{148, DROP_INITIATION_SIZE}, {92, DROP_RESPONSE_SIZE}, {64, DROP_COOKIE_SIZE}};
    uint32_t size = datagram.size, kind = read32_le(datagram, 0); /* 0 if there are fewer than four bytes */
    if (kind >= FIRST_HANDSHAKE && kind <= LAST_HANDSHAKE)
        return size == handshakes[kind - FIRST_HANDSHAKE].size ? DROP_REASONS
                                                               : handshakes[kind - FIRST_HANDSHAKE].reason;
    if (lane->state->takes_units && (kind & 0xFF) == TYPE_FRAGMENT) {
        if (size <= FRAGMENT_HEADER_SIZE)
            return DROP_FRAGMENT_SHORT;
    } else if (kind != TYPE_TRANSPORT) {
        return DROP_UNKNOWN_TYPE;
    } else if (size < OVERHEAD) {
        return DROP_TRANSPORT_SHORT;
    }
    return indices_find(lane->state, read32_le(datagram, 4)) == NULL ? DROP_UNKNOWN_INDEX : DROP_REASONS;
}

/* Count the rows from `next` on that cannot be valid; any other is for Python, and the next call continues after it. */
static enum in_result take_rows(struct lane *lane) {
    struct in *in = &lane->in;
    while (in->next < in->rows) {
        uint32_t row = in->next++;
        struct slice datagram = row_of(in, row);
        enum reason reason = refusal(lane, datagram);
        if (reason == DROP_REASONS)
            return hand_back(in, IN_ROW, NULL, row_at(in, row), datagram.size, 1);
        record_packet(lane, NULL, reason, 1, DATAGRAM, datagram);
    }
    in->work = WORK_NONE;
    return IN_DONE;
}

/* Return whether the first row is of a session, in which case Python handles all rows together. */
static bool begins_with_session(const struct lane *lane) {
    const struct in *in = &lane->in;
    struct slice first = row_of(in, 0);
    bool is_fragment = lane->state->takes_units && in->stride > FRAGMENT_HEADER_SIZE && read8(first, 0) == TYPE_FRAGMENT;
    bool is_message = in->stride >= OVERHEAD && read32_le(first, 0) == TYPE_TRANSPORT;
    return (is_fragment || is_message) && indices_find(lane->state, read32_le(first, 4)) != NULL;
}

/* Return the keypair of rows that are all of one *kind* and for that keypair; NULL if they are not, or Python must
 * decide. */
static struct keypair *keypair_of_all(const struct lane *lane, uint32_t kind, uint32_t mask, uint32_t least) {
    const struct in *in = &lane->in;
    if (in->last < least || (in->rows > 1 && in->stride < least))
        return NULL;
    uint32_t index = read32_le(row_of(in, 0), 4);
    for (uint32_t row = 0; row < in->rows; row++) {
        struct slice datagram = row_of(in, row);
        if ((read32_le(datagram, 0) & mask) != kind || read32_le(datagram, 4) != index)
            return NULL;
    }
    struct keypair *keypair = indices_find(lane->state, index);
    return keypair != NULL && is_ordinary(in, keypair) ? keypair : NULL;
}

/* Return the peer that sent the gathered rows, as far as can be seen without opening them; NULL if none did
 * (tun.inbound: sender). */
static struct peer *sender(const struct lane *lane) {
    const struct in *in = &lane->in;
    if (in->udp->layout)
        return places_find(lane->state, in->udp, &in->arrivals[in->current].source);
    struct keypair *keypair =
        in->stride < HEADER_SIZE ? NULL : indices_find(lane->state, read32_le(row_of(in, 0), 4));
    return keypair == NULL ? NULL : keypair->peer;
}

/* Return whether to drop the gathered rows early. */
static bool is_crowded_out(struct lane *lane) {
    struct in *in = &lane->in;
    struct peer *peer = in->udp->crowding.is_behind ? sender(lane) : NULL;
    if (peer == NULL)
        return false;
    bool is_there = in->udp->layout || is_at_host(peer, &in->arrivals[in->current]);
    struct share *share = is_there ? &counts_of(lane, peer)->share : &lane->turns.elsewhere;
    uint32_t merged = in->arrivals[in->current].segment;
    uint32_t pieces = merged ? pieces_of(in->gathered, merged) : in->rows;
    if (crowding_admits(lane, &in->udp->crowding, share, pieces, in->now))
        return false;
    record_packet(lane, is_there ? peer : NULL, DROP_CROWDED, in->rows, DATAGRAM, row_of(in, 0));
    return true;
}

/* Handle the gathered rows. */
static enum in_result take(struct lane *lane) {
    struct in *in = &lane->in;
    if (!in->gathered) {
        record_drop(lane, NULL, DROP_UNKNOWN_TYPE, 1);
        return IN_DONE;
    }
    in->rows = (in->gathered + in->stride - 1) / in->stride;
    in->last = in->gathered - (in->rows - 1) * in->stride;
    if (is_crowded_out(lane))
        return IN_DONE;
    if (in->udp->layout)
        return clear_take(lane);
    if (in->rows <= MAXIMUM_ROWS) {
        struct keypair *keypair = keypair_of_all(lane, TYPE_TRANSPORT, UINT32_MAX, OVERHEAD);
        if (keypair != NULL)
            return take_messages(lane, keypair);
        if (lane->state->takes_units)
            keypair = keypair_of_all(lane, TYPE_FRAGMENT, 0xFF, FRAGMENT_HEADER_SIZE + 1);
        if (keypair != NULL && keypair->bulk != NULL && keypair->bulk->window != NULL) {
            in->keypair = keypair;
            in->next = 0;
            in->work = WORK_FRAGMENTS;
            return take_fragments(lane);
        }
    }
    if (begins_with_session(lane))
        return hand_back(in, IN_RECEIVED, NULL, 0, in->gathered, in->rows);
    in->next = 0;
    in->work = WORK_ROWS;
    return take_rows(lane);
}

static enum in_result take_gathered(struct lane *lane) {
    enum in_result result = take(lane);
    lane->in.gathered = 0;
    return result;
}

/* Return how many bytes the merged rows of consecutive receives may have together; messages no more rows than one
 * receive. */
static uint32_t most_gathered(const struct in *in) {
    uint32_t rows = GATHERED_ROWS * in->stride;
    return in->udp->layout || rows > GATHERED_BYTES ? GATHERED_BYTES : rows;
}

/* Return whether the gathered rows, which end with a merged receive of *size* bytes, are complete: the content of
 * messages is not known yet, so those of a session wait as long as there is room (tun.gathering: may_go_on). */
static bool is_end(const struct lane *lane, uint32_t size) {
    const struct in *in = &lane->in;
    if (size % in->stride)
        return true;
    if (in->udp->layout)
        return !may_go_on(slice_part(in->buffer, in->gathered - in->stride, in->stride));
    return in->gathered + in->stride > most_gathered(in) || in->stride < OVERHEAD ||
           read32_le(in->buffer, 0) != TYPE_TRANSPORT || indices_find(lane->state, read32_le(in->buffer, 4)) == NULL;
}

/* Begin to gather with the rows at the start of the buffer; true if they must be handled at once. */
static bool begin(struct lane *lane, uint32_t size) {
    struct in *in = &lane->in;
    const struct arrival *arrival = &in->arrivals[in->current];
    in->gathered = size;
    in->stride = arrival->segment ? arrival->segment : size;
    return (arrival->segment && is_end(lane, size)) || size < OVERHEAD || in->takes_one;
}

/* Return whether a receive of *size* bytes continues the gathered rows. */
static bool goes_on(const struct in *in, uint32_t size, const struct arrival *arrival) {
    uint32_t most = most_gathered(in), room = in->stride;
    if (arrival->segment)
        room = most > in->gathered ? most - in->gathered : 0;
    bool is_alike = !arrival->segment || in->udp->layout ||
                    slice_same_at(in->buffer, slice_part(in->buffer, in->gathered, size), 0, ADDRESSED);
    return size && size <= room && is_alike && are_same(arrival, &in->arrivals[in->current]);
}

/* Take the datagrams of *udp*, at most *most* bytes or a little more; IN_EMPTY: there is nothing more.  After any
 * result but IN_DONE and IN_EMPTY the next call continues the same go. */
enum in_result in_drain(struct lane *lane, struct udp *udp, double now, uint32_t most) {
    struct in *in = &lane->in;
    enum in_result result;
    if (!in->is_going) {
        in->is_going = true;
        in->keypair = NULL; /* that of an earlier go may be gone */
        in->udp = udp;
        in->takes_one = pace_takes_one(udp->pace, now);
        in->gathered = in->stride = in->carried = in->count = in->taken = in->pieces = 0;
        in->is_empty = in->is_over = false;
        in->work = WORK_NONE;
        if (in->takes_one)
            udp->crowding.is_behind = false;
        crowding_begin(lane, udp, now);
    }
    in->now = now;
    for (;;) {
        if (in->work != WORK_NONE) {
            result = in->work == WORK_CLEAR      ? clear_deliver(lane)
                     : in->work == WORK_ROWS     ? take_rows(lane)
                     : in->work == WORK_MESSAGES ? deliver_messages(lane)
                                                 : take_fragments(lane);
            if (result != IN_DONE)
                return result;
        }
        if (in->carried) { /* rows that came after those that have been handled */
            uint32_t size = in->carried;
            slice_move(in->buffer, 0, slice_part(in->buffer, in->carried_at, size));
            in->carried = 0;
            in->current ^= 1;
            if (begin(lane, size) && (result = take_gathered(lane)) != IN_DONE)
                return result;
            continue;
        }
        if (in->is_over)
            break;
        if (in->taken >= most || in->pieces >= AT_ONCE || in->is_empty || (in->takes_one && in->count) ||
            lane->drop_count >= DROPS_AT_ONCE || is_wanted(lane)) {
            in->is_over = true;
            if (in->gathered && (result = take_gathered(lane)) != IN_DONE)
                return result;
            continue;
        }
        bool is_truncated = false;
        struct arrival *arrival = &in->arrivals[in->gathered ? in->current ^ 1 : in->current];
        ssize_t received = receive(lane, in->gathered, arrival, &is_truncated);
        if (received < 0 && errno == EAGAIN) {
            in->is_empty = true;
            continue;
        }
        if (received < 0) { /* an ICMP error for an earlier datagram, reported here once: nobody has authenticated it */
            record_drop(lane, NULL, DROP_UDP_ERROR, 1);
            in->taken += in->stride ? in->stride : OVERHEAD;
            in->count += in->takes_one;
            continue;
        }
        uint32_t size = (uint32_t)received;
        in->count++;
        in->taken += size ? size : OVERHEAD;
        in->pieces += pieces_of(size, arrival->segment);
        if (is_truncated) {
            record_drop(lane, NULL, DROP_OVERSIZED, 1);
            continue;
        }
        if (!in->gathered) {
            if (!size)
                record_drop(lane, NULL, DROP_UNKNOWN_TYPE, 1);
            else if (begin(lane, size) && (result = take_gathered(lane)) != IN_DONE)
                return result;
            continue;
        }
        if (goes_on(in, size, arrival)) {
            in->gathered += size;
            if ((size % in->stride || (arrival->segment && is_end(lane, size)) ||
                 in->gathered > RECEIVE_BYTES - in->stride) &&
                (result = take_gathered(lane)) != IN_DONE)
                return result;
            continue;
        }
        in->carried = size;
        in->carried_at = in->gathered;
        if (!size)
            record_drop(lane, NULL, DROP_UNKNOWN_TYPE, 1);
        if ((result = take_gathered(lane)) != IN_DONE)
            return result;
    }
    if (!in->takes_one)
        pace_took(udp->pace, in->count);
    crowding_end(udp, in->pieces, in->count, in->taken, !in->is_empty && !in->takes_one);
    in->is_going = false;
    return in->is_empty ? IN_EMPTY : IN_DONE;
}
