/* Raw sockets of a story: packets of ipip and GRE as recvmmsg() returns them, and checks of those that leave. */
#include "world.h"

#include "../bytes.h"
#include "../packet.h"

#include <errno.h>
#include <stdlib.h>

enum { GRE_CHECKSUM = 0x8000, GRE_KEY = 0x2000, GRE_SEQUENCE = 0x1000, LARGEST = MAXIMUM_IP, ODD_WORDS = 3 };

/* The packets that wait at the raw sockets, each group with one spec and one outer header. */
struct raw_receive {
    struct spec spec;
    const uint8_t *bytes; /* instead of packets, or NULL */
    uint32_t size, socket, peer, source, count, tos, words, change_at, change_with;
    bool is_odd_control;
};

static struct raw_receive waiting[RECEIVES];
static uint32_t waiting_first, waiting_count;

static const struct {
    uint32_t peer;
    int layout, protocol;
} sockets[RAW_SOCKETS] = {
    {IPIP, LAYOUT_BARE, 4}, {IPIP, LAYOUT_BARE, 41}, {GRE, LAYOUT_GRE, 47}, {GRE_OVER_IPV6, LAYOUT_GRE, 47},
};

/* Empty the queues, and reset the sockets and tunnels. */
void raw_reset(void) {
    waiting_count = 0;
    world.lane->raw = (struct raw){.rows = world.lane->raw.rows};
    for (int i = 0; i < RAW_SOCKETS; i++)
        world.sockets[SOCKETS + i] = (struct udp){
            .closes_at = INFINITY,
            .discovery = &world.discovery,
            .pace = &world.pace,
            .fd = FIRST_SOCKET + SOCKETS + i,
            .layout = sockets[i].layout,
            .protocol = sockets[i].protocol,
        };
}

/* Write the prefix of GRE payloads according to *tunnel*. */
static void put_prefix(struct tunnel *tunnel, bool has_sequence) {
    uint32_t flags = (tunnel->has_checksum ? GRE_CHECKSUM : 0u) | (tunnel->has_identifier ? GRE_KEY : 0u) |
                     (has_sequence ? GRE_SEQUENCE : 0u);
    uint32_t key_at = GRE_SIZE + (tunnel->has_checksum ? GRE_FIELD : 0u);
    uint32_t number_at = key_at + (tunnel->has_identifier ? GRE_FIELD : 0u);
    memset(tunnel->prefix, 0, sizeof tunnel->prefix);
    for (int i = 0; i < 2; i++) {
        put16(tunnel->prefix[i], flags);
        put16(tunnel->prefix[i] + 2, i ? 0x86DD : 0x0800);
        if (tunnel->has_identifier)
            put32(tunnel->prefix[i] + key_at, tunnel->identifier);
    }
    tunnel->prefix_size = number_at + (has_sequence ? GRE_FIELD : 0u);
    tunnel->number_at = has_sequence ? number_at : 0;
}

/* Give a peer without ports its tunnel and its sockets. */
void raw_reset_peer(uint32_t number) {
    struct remote *remote = &world.remotes[number];
    struct tunnel *tunnel = &remote->tunnel;
    struct udp *by_ipv4 = NULL, *by_ipv6 = NULL;
    for (int i = 0; i < RAW_SOCKETS; i++)
        if (sockets[i].peer == number) {
            by_ipv4 = by_ipv4 == NULL ? &world.sockets[SOCKETS + i] : by_ipv4;
            by_ipv6 = &world.sockets[SOCKETS + i];
        }
    *tunnel = (struct tunnel){.layout = (uint8_t)by_ipv4->layout, .protocols = {by_ipv4->protocol, by_ipv6->protocol}};
    if (tunnel->layout == LAYOUT_GRE) {
        tunnel->has_identifier = number == GRE;
        tunnel->identifier = number == GRE ? 7 : 0;
        put_prefix(tunnel, false);
    }
    for (int kind = 0; kind < RAW_KINDS; kind++)
        remote->local.senders[kind] = kind >= RAW_KINDS / 2 ? by_ipv6 : by_ipv4;
}

/* Packets from the kernel */

/* Write one packet as a raw socket returns it, and return its size. */
static uint32_t fill(const struct raw_receive *receive, uint32_t number, const union address *source, uint8_t *at) {
    const struct tunnel *tunnel = &world.remotes[receive->peer].tunnel;
    uint32_t head = 0, size;
    if (source->any.sa_family == AF_INET) {
        head = IPV4_HEADER_SIZE + receive->words * 4;
        memset(at, 0, head);
        at[0] = (uint8_t)(0x40 | head / 4);
        at[1] = (uint8_t)receive->tos;
    }
    if (receive->bytes != NULL) {
        size = receive->size;
        memcpy(at + head, receive->bytes, size);
    } else {
        memcpy(at + head, tunnel->prefix[receive->spec.version == 6], tunnel->prefix_size);
        size = tunnel->prefix_size + make_packet(&receive->spec, number, at + head + tunnel->prefix_size);
        if (tunnel->number_at)
            put32(at + head + tunnel->number_at, number);
        if (tunnel->has_checksum)
            put16(at + head + GRE_SIZE, fold(sum_bytes(slice_of(at + head, size))) ^ 0xFFFF);
    }
    if (receive->change_with)
        at[receive->change_at % (head + size ? head + size : 1)] ^= (uint8_t)receive->change_with;
    return head + size;
}

static void put_traffic_class(struct msghdr *header, uint32_t tos) {
    int value = (int)tos;
    struct cmsghdr beside = {.cmsg_len = CMSG_LEN(sizeof value), .cmsg_level = IPPROTO_IPV6, .cmsg_type = IPV6_TCLASS};
    memcpy(header->msg_control, &beside, sizeof beside);
    memcpy((uint8_t *)header->msg_control + CMSG_LEN(0), &value, sizeof value);
    header->msg_controllen = CMSG_SPACE(sizeof value);
}

int raw_receive_many(int fd, struct message *messages, unsigned int count) {
    static uint8_t packet[2 * LARGEST];
    if (fd < FIRST_SOCKET + SOCKETS || fd >= FIRST_SOCKET + ALL_SOCKETS || count != RAW_MESSAGES)
        refuse_story("a receive of many of something else");
    if (world.receive_error) {
        errno = world.receive_error;
        world.receive_error = 0;
        return -1;
    }
    unsigned int made = 0;
    while (made < count && waiting_count) {
        struct raw_receive *receive = &waiting[waiting_first % RECEIVES];
        if (fd != FIRST_SOCKET + (int)receive->socket)
            break;
        const union address *source = &world.remotes[receive->source].peer.endpoint;
        uint32_t size = fill(receive, receive->count, source, packet), at = 0;
        struct msghdr *header = &messages[made].msg_hdr;
        for (size_t part = 0; part < header->msg_iovlen && at < size; part++) {
            uint32_t room = (uint32_t)header->msg_iov[part].iov_len, bytes = size - at < room ? size - at : room;
            memcpy(header->msg_iov[part].iov_base, packet + at, bytes);
            at += bytes;
        }
        messages[made++].msg_len = at;
        bool is_ipv4 = source->any.sa_family == AF_INET;
        memcpy(header->msg_name, source, sizeof *source);
        header->msg_namelen = is_ipv4 ? sizeof source->v4 : sizeof source->v6;
        header->msg_controllen = 0;
        if (!is_ipv4 && !receive->is_odd_control)
            put_traffic_class(header, receive->tos);
        world.inputs++;
        world.datagrams++;
        if (!receive->count--) {
            waiting_first++;
            waiting_count--;
        }
    }
    if (!made) {
        errno = EAGAIN;
        return -1;
    }
    return (int)made;
}

/* Packets to the kernel */

int raw_send_many(int fd, struct message *messages, unsigned int count) {
    if (fd < 0) {
        errno = EBADF;
        return -1;
    }
    if (fd < FIRST_SOCKET + SOCKETS || fd >= FIRST_SOCKET + ALL_SOCKETS || !count || count > RAW_MESSAGES)
        refuse_story("a send of many to something else");
    int number = fd - FIRST_SOCKET - SOCKETS;
    const struct tunnel *tunnel = &world.remotes[sockets[number].peer].tunnel;
    const struct peer *peer = &world.remotes[sockets[number].peer].peer;
    for (unsigned int i = 0; i < count; i++) {
        const struct msghdr *header = &messages[i].msg_hdr;
        const uint8_t *at = header->msg_iov->iov_base;
        if (header->msg_iovlen != 1 || header->msg_namelen != peer->endpoint_size)
            refuse_story("a packet in pieces, or for nobody");
        check_clear(at, (uint32_t)header->msg_iov->iov_len, tunnel);
        if (tunnel->protocols[at[tunnel->prefix_size] >> 4 == 6] != sockets[number].protocol)
            refuse_story("a packet from the socket of another protocol");
        for (struct cmsghdr *each = CMSG_FIRSTHDR(header); each != NULL;
             each = CMSG_NXTHDR((struct msghdr *)(uintptr_t)header, each))
            if (each->cmsg_len != CMSG_LEN(sizeof(int)))
                refuse_story("a control message of another size");
    }
    if (world.send_errors && world.send_errors--) {
        if (count > 1 && world.send_errors & 1)
            return (int)(count / 2); /* there was room for some */
        errno = world.send_error;
        return -1;
    }
    return (int)count;
}

/* The commands of a story */

void say_raw_packets(struct cursor *cursor) {
    if (waiting_count == RECEIVES)
        drain_raw(cursor);
    struct raw_receive *receive = &waiting[(waiting_first + waiting_count++) % RECEIVES];
    uint32_t how = take8(cursor), count = take8(cursor);
    *receive = (struct raw_receive){
        .socket = SOCKETS + how % RAW_SOCKETS,
        .peer = sockets[how % RAW_SOCKETS].peer,
        .count = count % 80,
        .tos = how >> 2 & 3,
    };
    receive->source = receive->peer;
    receive->spec = take_spec(cursor, false);
    receive->spec.owner = count & 0x80 ? receive->spec.owner : receive->peer;
    receive->spec.gso = 0;
    if (!(how & 0x10))
        receive->spec.version = sockets[how % RAW_SOCKETS].protocol == 41 ? 6 : sockets[how % RAW_SOCKETS].protocol == 4 ? 4 : receive->spec.version;
    if (how & 0x20)
        receive->source = take8(cursor) % PEERS;
    if (how & 0x40) {
        receive->change_at = take16(cursor);
        receive->change_with = take8(cursor);
    }
    if (how & 0x80) {
        uint32_t odd = take8(cursor), left;
        receive->words = odd % (ODD_WORDS + 1);
        receive->is_odd_control = odd >> 2 & 1;
        if (odd >> 3 & 1) {
            left = (uint32_t)(cursor->end - cursor->at);
            receive->size = odd >> 4 < left ? odd >> 4 : left;
            receive->bytes = cursor->at;
            cursor->at += receive->size;
        }
    }
}

void drain_raw(struct cursor *cursor) {
    for (int i = 0; i < MOST_RESULTS; i++) {
        struct udp *udp = &world.sockets[waiting_count ? waiting[waiting_first % RECEIVES].socket : SOCKETS];
        world.raw_udp = udp;
        enum in_result result = raw_drain(world.lane, world.lane->raw.is_going ? world.lane->raw.udp : udp, world.now);
        world.raw_udp = NULL;
        take_news();
        const struct raw *raw = &world.lane->raw;
        if (result == IN_RAW && raw->back_row >= raw->count)
            refuse_story("a row beyond those that came");
        if (result == IN_RAW_GROUP && (raw->first >= raw->end || raw->end > raw->count))
            refuse_story("a group of no rows");
        if ((result == IN_EMPTY || result == IN_DONE) && !waiting_count)
            return;
        if (result == IN_RAW || result == IN_RAW_GROUP) {
            uint32_t how = take8(cursor);
            if (how == 0xFF)
                places_remove(world.lane->state, &world.remotes[IPIP].peer); /* it led to a command */
        }
    }
    refuse_story("a drain of a raw socket without an end");
}

void say_raw_tunnel(struct cursor *cursor) {
    uint32_t which = take8(cursor), value = take16(cursor);
    struct remote *remote = &world.remotes[IPIP + which % (PEERS - IPIP)];
    switch (which >> 2 & 7) {
    case 0: remote->tunnel.has_identifier = value & 1; break;
    case 1: remote->tunnel.identifier = value & 1 ? 7 : 8; break;
    case 2: remote->local.senders[value % RAW_KINDS] = NULL; break;
    case 3: world.sockets[SOCKETS + value % RAW_SOCKETS].closes_at = value & 0x80 ? world.now : INFINITY; break;
    case 4: world.sockets[SOCKETS + value % RAW_SOCKETS].has_shares = value & 0x80; break;
    case 5: remote->path.mtu = (int)(68 + value % 9000); break;
    case 6: remote->unsealed.segment_limit = (int)(value % 9000); break;
    default:
        if (remote->peer.located_size && !(value & 0xF))
            places_remove(world.lane->state, &remote->peer);
        else if (remote->peer.located_size && value & 2) { /* where another one is, perhaps with the same tunnel */
            const struct peer *other = &world.remotes[IPIP + (value >> 2 & 1)].peer;
            places_remove(world.lane->state, &remote->peer);
            remote->peer.located_size = 4;
            memcpy(remote->peer.located, &other->endpoint.v4.sin_addr, 4);
            places_add(world.lane->state, &remote->peer);
        } else if (remote->tunnel.layout == LAYOUT_GRE) {
            remote->tunnel.has_checksum = value & 4;
            put_prefix(&remote->tunnel, value & 8);
        }
    }
}
