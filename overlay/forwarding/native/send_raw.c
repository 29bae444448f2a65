/* From raw sockets to the wire, like overlay/forwarding/underlay/mmsg.py: separate packets, many in one call. */
#include "atomics.h"
#include "native.h"

#include <errno.h>
#include <netinet/in.h>

/* Return the socket that packets with *marks* leave from (sender: _carrier); NULL if it is not known. */
static const struct udp *sender(const struct peer *peer, uint32_t marks) {
    return peer->local->senders[marks >> MARK_KIND_SHIFT & (RAW_KINDS - 1)];
}

/* Return whether packets with *marks* may leave for *peer* now; otherwise Python must decide. */
bool raw_may_send(const struct peer *peer, uint32_t marks) {
    const struct udp *udp = sender(peer, marks);
    return peer->endpoint_size && !peer->is_held && is_open(udp) && !udp->has_shares;
}

static uint32_t put_controls(const struct peer *peer, uint32_t marks, struct slice control) {
    int tos = (int)(marks & MARK_TOS), ttl = (int)(marks >> MARK_TTL_SHIFT & 0xFF);
    bool is_ipv4 = peer->endpoint.any.sa_family == AF_INET;
    int level = is_ipv4 ? IPPROTO_IP : IPPROTO_IPV6;
    uint32_t end = 0;
    if (tos)
        end = add_control(control, end, level, is_ipv4 ? IP_TOS : IPV6_TCLASS, &tos, sizeof tos);
    if (ttl)
        end = add_control(control, end, level, is_ipv4 ? IP_TTL : IPV6_HOPLIMIT, &ttl, sizeof ttl);
    return end;
}

/* Send the first *count* packets.  Those that the kernel does not accept are for Python: the first with the error, and
 * the ones after it without. */
void raw_send(struct lane *lane, struct peer *peer, struct iovec (*packets)[RAW_MESSAGES], uint32_t count,
              uint32_t marks) {
    struct out *out = &lane->out;
    const struct udp *udp = sender(peer, marks);
    union address name = peer->endpoint;
    uint8_t control[2 * CMSG_SPACE(4)];
    uint32_t control_size = put_controls(peer, marks, slice_of(control, sizeof control));
    struct message messages[RAW_MESSAGES];
    if (name.any.sa_family == AF_INET) /* for a raw socket, a port is a protocol, or unused */
        name.v4.sin_port = 0;
    else
        name.v6.sin6_port = name.v6.sin6_flowinfo = 0;
    for (uint32_t i = 0; i < count; i++)
        messages[i] = (struct message){
            .msg_hdr = {
                .msg_name = &name,
                .msg_namelen = peer->endpoint_size,
                .msg_iov = &(*packets)[i],
                .msg_iovlen = 1,
                .msg_control = control_size ? control : NULL,
                .msg_controllen = control_size,
            },
        };
    request_look(lane, peer, udp, marks);
    uint32_t at = 0;
    int error = 0;
    while (at < count && !is_refused(out, peer)) {
        int sent = lane->io->send_many(udp == NULL ? -1 : udp->fd, &messages[at], count - at);
        if (sent <= 0) {
            error = sent < 0 ? errno : EAGAIN;
            break;
        }
        for (int i = 0; i < sent; i++)
            counts_of(lane, peer)->tx_bytes += (int64_t)(*packets)[at++].iov_len;
    }
    for (; at < count; at++, error = 0)
        refuse(out, peer, &(*packets)[at], 1, (uint32_t)(*packets)[at].iov_len, marks, error);
}

/* Send *rows*, packets of *size* bytes except the last, in as many calls as send_evenly() makes. */
void raw_send_evenly(struct lane *lane, struct peer *peer, struct slice rows, uint32_t size, uint32_t marks) {
    uint32_t total = rows.size, count = (total + size - 1) / size, sends = sends_of(count, size);
    for (uint32_t part = 0; part < sends; part++) {
        struct iovec packets[RAW_MESSAGES];
        uint32_t from = count * part / sends, to = count * (part + 1) / sends;
        for (uint32_t i = from; i < to; i++) {
            uint32_t at = i * size;
            packets[i - from] = iovec_of(slice_part(rows, at, total - at < size ? total - at : size));
        }
        raw_send(lane, peer, &packets, to - from, marks);
    }
}
