/* The kernel and the peers of a story, and checks of everything that the lane outputs. */
#include "world.h"

#include "../bytes.h"
#include "../packet.h"

#include <errno.h>
#include <math.h>
#include <netinet/udp.h>
#include <stdio.h>
#include <stdlib.h>

enum { TUN = 3, SOCKET = FIRST_SOCKET, MOST_ROWS = 128 /* that a kernel merges; further rows of a receive are not counted as inputs */ };

struct world world;

/* End the process, because a check failed. */
void refuse_story(const char *what) {
    fprintf(stderr, "a story failed: %s\n", what);
    abort();
}

static void expect(bool is_so, const char *what) {
    if (!is_so)
        refuse_story(what);
}

/* Packets */

void put_address(uint8_t *at, uint32_t version, uint32_t owner) {
    memset(at, 0, version == 4 ? 4 : 16);
    at[0] = version == 4 ? 10 : 0xFD;
    at[version == 4 ? 2 : 13] = (uint8_t)owner;
    at[version == 4 ? 3 : 15] = 1;
}

/* Write the packet *number* of a flow, at most MAXIMUM_IP bytes, and return its length. */
uint32_t make_packet(const struct spec *spec, uint32_t number, uint8_t *at) {
    uint32_t ip = spec->version == 4 ? IPV4_HEADER_SIZE + spec->ip_words * 4 : IPV6_HEADER_SIZE + spec->extensions * 8;
    uint32_t l4 = spec->protocol == PROTOCOL_TCP ? TCP_HEADER_SIZE + spec->tcp_words * 4 : UDP_HEADER_SIZE;
    uint32_t payload = spec->payload, length = ip + l4 + payload;
    if (length > MAXIMUM_IP) {
        length = MAXIMUM_IP;
        payload = length - ip - l4;
    }
    memset(at, 0, length);
    uint32_t near = PEERS, far = spec->owner;
    if (spec->version == 4) {
        at[0] = (uint8_t)(0x40 | ip / 4);
        at[1] = (uint8_t)spec->tos;
        put16(at + 2, length);
        put16(at + 4, number + spec->sequence);
        at[6] = 0x40;
        at[8] = 64;
        at[9] = (uint8_t)spec->protocol;
        put_address(at + 12, 4, spec->is_ours ? near : far);
        put_address(at + 16, 4, spec->is_ours ? far : near);
        put16(at + 10, check_ipv4(slice_of(at, length)));
    } else {
        put32(at, 6u << 28 | spec->tos << 20);
        put16(at + 4, length - IPV6_HEADER_SIZE);
        at[6] = (uint8_t)(spec->extensions ? 60 : spec->protocol);
        at[7] = 64;
        put_address(at + 8, 6, spec->is_ours ? near : far);
        put_address(at + 24, 6, spec->is_ours ? far : near);
        for (uint32_t i = 0; i < spec->extensions; i++)
            at[IPV6_HEADER_SIZE + i * 8] = (uint8_t)(i + 1 < spec->extensions ? 60 : spec->protocol);
    }
    uint8_t *head = at + ip;
    put16(head, 1000);
    put16(head + 2, 2000);
    if (spec->protocol == PROTOCOL_TCP) {
        put32(head + 4, spec->sequence + number * payload);
        head[12] = (uint8_t)(l4 / 4 << 4);
        head[13] = (uint8_t)spec->flags;
        if (spec->tcp_words) {
            put16(head + 20, 0x0204); /* MSS */
            put16(head + 22, spec->mss);
        }
    } else {
        put16(head + 4, length - ip);
    }
    if (spec->protocol == PROTOCOL_TCP || spec->protocol == PROTOCOL_UDP) {
        struct flow flow = {(uint8_t)spec->version, (uint8_t)spec->protocol, ip, ip + l4};
        uint8_t *field = head + (spec->protocol == PROTOCOL_TCP ? 16 : 6);
        uint64_t sum = pseudo_sum(slice_of(at, length), &flow, length - ip);
        if (spec->gso)
            put16(field, fold(sum)); /* partial, as the kernel leaves it */
        else
            put16(field, fold(sum + sum_bytes(slice_of(head, length - ip))) ^ (spec->is_wrong ? 0 : 0xFFFF));
    }
    for (uint32_t i = 0; i < spec->changes; i++)
        at[spec->at[i] % length] ^= (uint8_t)spec->with[i];
    return length;
}

static void put_virtio(uint8_t *at, const struct spec *spec) {
    uint32_t ip = spec->version == 4 ? IPV4_HEADER_SIZE + spec->ip_words * 4 : IPV6_HEADER_SIZE + spec->extensions * 8;
    bool is_tcp = spec->protocol == PROTOCOL_TCP;
    memset(at, 0, VIRTIO_SIZE);
    if (!spec->gso)
        return;
    at[0] = NEEDS_CSUM;
    if (spec->gso > 1) {
        at[1] = (uint8_t)(!is_tcp ? GSO_UDP_L4 : spec->version == 4 ? GSO_TCPV4 : GSO_TCPV6);
        if (spec->gso > 2)
            at[1] |= GSO_ECN;
        put16_le(at + 4, spec->segment);
    }
    put16_le(at + 6, ip);
    put16_le(at + 8, is_tcp ? 16 : 6);
}

/* Seal a unit of one super-packet, and return how it is cut. */
void make_unit(struct unit *unit, const struct spec *spec, uint32_t piece) {
    struct far_end *far = &world.far[unit->peer][unit->keypair];
    struct spec whole = *spec;
    uint8_t virtio[VIRTIO_SIZE];
    whole.gso = spec->gso > 1 ? spec->gso : 2;
    put_virtio(virtio, &whole);
    uint32_t length = make_packet(&whole, 0, unit->bytes + META_SIZE);
    unit->bytes[0] = virtio[1];
    unit->bytes[1] = (uint8_t)(spec->is_wrong ? 1 : 0);
    put16_le(unit->bytes + 2, spec->segment);
    unit->counter = far->unit_counter++;
    if (world.is_tap) {
        uint32_t link = put_link(spec, unit->bytes + META_SIZE + length);
        unit->bytes[1] ^= (uint8_t)link;
        length += link;
    }
    if (!aead_seal(&far->unit_seal[unit->cipher - 1], unit->counter,
                   slice_of(unit->bytes, META_SIZE + length + TAG_SIZE)))
        refuse_story("a unit cannot be sealed");
    unit->size = META_SIZE + length + TAG_SIZE;
    uint32_t least = (unit->size + MAXIMUM_FRAGMENTS - 1) / MAXIMUM_FRAGMENTS;
    unit->piece = piece < least ? least : piece;
    unit->count = (unit->size + unit->piece - 1) / unit->piece;
}

/* Packets from the kernel */

static ssize_t fake_read(int fd, void *at, size_t size) {
    expect(fd == TUN && size == (world.is_tap ? FRAME_READ_BYTES : READ_BYTES), "a read of something else");
    if (world.read_error) {
        errno = world.read_error;
        world.read_error = 0;
        return -1;
    }
    if (!world.packet_count) {
        errno = EAGAIN;
        return -1;
    }
    struct spec *spec = &world.packets[world.packet_first % PACKETS];
    put_virtio(at, spec);
    uint32_t link = world.is_tap ? put_link(spec, (uint8_t *)at + VIRTIO_SIZE) : 0;
    put16_le((uint8_t *)at + 6, get16_le((uint8_t *)at + 6) + link);
    uint8_t *packet = (uint8_t *)at + VIRTIO_SIZE + link;
    uint32_t length = link + make_packet(spec, world.repeats[world.packet_first % PACKETS], packet);
    if (!world.repeats[world.packet_first % PACKETS]--) {
        world.packet_first++;
        world.packet_count--;
    }
    world.inputs++;
    return VIRTIO_SIZE + (ssize_t)length;
}

static uint32_t fill_messages(const struct receive *receive, uint8_t *at, uint32_t *stride) {
    struct far_end *far = &world.far[receive->peer][receive->keypair];
    const struct keypair *keypair = &world.remotes[receive->peer].keypairs[receive->keypair];
    uint32_t size = 0;
    struct spec spec = receive->spec;
    for (uint32_t row = 0; row < receive->count; row++) {
        if (row == receive->count - 1 && receive->last < spec.payload)
            spec.payload = receive->last;
        if (size + OVERHEAD + MOST_LINK + IPV4_HEADER_SIZE * 6 + spec.payload + PADDING > RECEIVE_BYTES)
            break;
        uint8_t *head = at + size, *packet = head + HEADER_SIZE;
        uint32_t lead = world.is_tap && spec.protocol ? put_lead(&spec, packet) : 0;
        uint32_t length = spec.protocol ? lead + make_packet(&spec, row, packet + lead) : 0, plain = padded(length, 1420);
        memset(packet + length, 0, plain - length);
        if (lead)
            packet[1] = (uint8_t)(spec.is_wrong && row % 5 == 3 ? spec.link : plain - length);
        uint64_t counter = far->counter;
        far->counter += receive->counter_step;
        put32_le(head, TYPE_TRANSPORT);
        put32_le(head + 4, keypair->local_index);
        put64_le(head + 8, counter);
        if (!aead_seal(&far->seal, counter, slice_of(packet, plain + TAG_SIZE)))
            refuse_story("a message cannot be sealed");
        size += OVERHEAD + plain;
        if (!row)
            *stride = size;
    }
    return size;
}

/* Write the bytes before a packet in the clear at *at*, and return their size: the tunnel's, and with a tap the frame's
 * own header. */
static uint32_t put_before(const struct tunnel *tunnel, const struct spec *spec, uint8_t *at) {
    uint32_t size = tunnel->prefix_size;
    memcpy(at, tunnel->prefix[spec->version == 6], size);
    if (!world.is_tap || size <= ETHERNET_SIZE)
        return size;
    return size - ETHERNET_SIZE + put_link(spec, at + size - ETHERNET_SIZE);
}

static uint32_t fill_clear(const struct receive *receive, uint8_t *at, uint32_t *stride) {
    const struct tunnel *tunnel = &world.remotes[receive->peer].tunnel;
    uint32_t size = 0, most = tunnel->prefix_size + 3 * VLAN_SIZE;
    uint32_t options = tunnel->layout == LAYOUT_GENEVE ? receive->option_words * 4 : 0;
    struct spec spec = receive->spec;
    for (uint32_t row = 0; row < receive->count; row++) {
        if (row == receive->count - 1 && receive->last < spec.payload)
            spec.payload = receive->last;
        if (size + most + options + IPV4_HEADER_SIZE * 6 + spec.payload > RECEIVE_BYTES)
            break;
        uint32_t before = put_before(tunnel, &spec, at + size);
        if (options) { /* after the header, before the frame */
            memmove(at + size + GENEVE_SIZE + options, at + size + GENEVE_SIZE, before - GENEVE_SIZE);
            memset(at + size + GENEVE_SIZE, 0, options);
            at[size] |= (uint8_t)(options / 4);
        }
        size += before + options + make_packet(&spec, row, at + size + before + options);
        if (!row)
            *stride = size;
    }
    return size;
}

static uint32_t fill_fragments(const struct receive *receive, uint8_t *at, uint32_t *stride) {
    const struct unit *unit = &world.units[receive->unit];
    const struct keypair *keypair = &world.remotes[unit->peer].keypairs[unit->keypair];
    uint32_t size = 0;
    for (uint32_t row = 0; row < receive->count; row++) {
        uint32_t number = (receive->from + row) % unit->count, from = number * unit->piece;
        uint32_t bytes = unit->size - from < unit->piece ? unit->size - from : unit->piece;
        if (size + FRAGMENT_HEADER_SIZE + unit->piece > RECEIVE_BYTES)
            break;
        uint8_t *head = at + size;
        head[0] = TYPE_FRAGMENT;
        head[1] = (uint8_t)number;
        head[2] = (uint8_t)unit->count;
        head[3] = (uint8_t)unit->cipher;
        put32_le(head + 4, keypair->local_index);
        put64_le(head + 8, unit->counter);
        memcpy(head + FRAGMENT_HEADER_SIZE, unit->bytes + from, bytes);
        size += FRAGMENT_HEADER_SIZE + bytes;
        if (!row)
            *stride = size;
        if (bytes < unit->piece)
            break; /* only the last of a receive is shorter */
    }
    return size;
}

static uint32_t fill(const struct receive *receive, uint8_t *at, uint32_t *stride) {
    uint32_t size;
    switch (receive->kind) {
    case MESSAGES:
        size = receive->peer < SEALED ? fill_messages(receive, at, stride) : fill_clear(receive, at, stride);
        break;
    case FRAGMENTS:
        size = fill_fragments(receive, at, stride);
        break;
    case AGAIN:
        size = world.again_size;
        *stride = world.again_stride;
        memcpy(at, world.again, size);
        break;
    default:
        size = *stride = receive->raw_size;
        if (size)
            memcpy(at, receive->raw, size);
    }
    if (size && receive->change_with)
        at[receive->change_at % size] ^= (uint8_t)receive->change_with;
    if (receive->flags & 1 && receive->kind != AGAIN) {
        memcpy(world.again, at, size);
        world.again_size = size;
        world.again_stride = *stride;
    }
    return size;
}

static size_t put_control(uint8_t *control, size_t at, int level, int kind, const void *data, size_t size) {
    struct cmsghdr header = {.cmsg_len = CMSG_LEN(size), .cmsg_level = level, .cmsg_type = kind};
    expect(at + CMSG_SPACE(size) <= CONTROL_BYTES, "too much beside a receive");
    memcpy(control + at, &header, sizeof header);
    memcpy(control + at + CMSG_LEN(0), data, size);
    return at + CMSG_SPACE(size);
}

static ssize_t fake_recvmsg(int fd, struct msghdr *message, int flags) {
    expect(fd >= SOCKET && fd < SOCKET + SOCKETS && !flags && message->msg_iov->iov_len == RECEIVE_BYTES, "a receive of something else");
    if (world.receive_error) {
        errno = world.receive_error;
        world.receive_error = 0;
        return -1;
    }
    const struct receive *receive = &world.receives[world.receive_first % RECEIVES];
    if (!world.receive_count || fd != SOCKET + (int)receive->socket) {
        errno = EAGAIN;
        return -1;
    }
    world.receive_first++;
    world.receive_count--;
    uint32_t stride = 0, size = fill(receive, message->msg_iov->iov_base, &stride);
    const struct remote *remote = &world.remotes[receive->source < PEERS ? receive->source : (uint32_t)(receive->source - PEERS)];
    union address source = remote->peer.endpoint;
    if (receive->source >= PEERS)
        source.v4.sin_port = htons((uint16_t)(4000 + receive->source)); /* the same place in both families */
    memcpy(message->msg_name, &source, sizeof source);
    message->msg_namelen = source.any.sa_family == AF_INET ? sizeof source.v4 : sizeof source.v6;
    message->msg_flags = receive->flags & 2 ? MSG_TRUNC : 0;
    size_t end = 0;
    uint8_t *control = message->msg_control;
    int segment = (int)(receive->segment ? receive->segment : stride), tos = (int)receive->ecn;
    uint8_t tos_byte = (uint8_t)tos, info[20] = {0};
    if (size > stride || receive->segment)
        end = put_control(control, end, IPPROTO_UDP, UDP_GRO, &segment, sizeof segment);
    bool is_ipv4 = source.any.sa_family == AF_INET;
    if (receive->is_odd_control) { /* as if there were not enough room for it */
        end = put_control(control, end, IPPROTO_IPV6, IPV6_PKTINFO, info, 0);
    } else if (is_ipv4) {
        end = put_control(control, end, IPPROTO_IP, IP_TOS, &tos_byte, 1);
        memcpy(info + 4, remote->local.received, 4);
        end = put_control(control, end, IPPROTO_IP, IP_PKTINFO, info, 12);
    } else {
        end = put_control(control, end, IPPROTO_IPV6, IPV6_TCLASS, &tos, sizeof tos);
        memcpy(info, remote->local.received, 16);
        end = put_control(control, end, IPPROTO_IPV6, IPV6_PKTINFO, info, 20);
    }
    message->msg_controllen = end;
    uint32_t rows = segment > 0 ? (size + (uint32_t)segment - 1) / (uint32_t)segment : 1;
    world.datagrams += rows < MOST_ROWS ? rows ? rows : 1 : MOST_ROWS;
    world.inputs += rows < MOST_ROWS ? rows ? rows : 1 : MOST_ROWS;
    return (ssize_t)size;
}

/* Packets to the kernel */

static struct far_end *far_end_of(uint32_t index, bool is_unit) {
    for (int peer = 0; peer < SEALED; peer++)
        for (int number = 0; number < KEYPAIRS; number++) {
            const struct remote *remote = &world.remotes[peer];
            if ((is_unit ? remote->keys[number].receiver_index : remote->keypairs[number].remote_index) == index)
                return &world.far[peer][number];
        }
    refuse_story("a datagram for a session that there is not");
    return NULL;
}

static void check_datagram(const uint8_t *at, uint32_t size, bool is_opened) {
    static uint8_t opened[RECEIVE_BYTES + OVERHEAD];
    expect(size > FRAGMENT_HEADER_SIZE && size <= sizeof opened, "a datagram of this size");
    struct far_end *far = far_end_of(get32_le(at + 4), at[0] == TYPE_FRAGMENT);
    uint64_t counter = get64_le(at + 8);
    if (at[0] == TYPE_FRAGMENT) { /* counters go up, and fragments of one unit in order */
        expect(at[1] < at[2] && (at[1] ? counter + 1 == far->unit_seen : counter >= far->unit_seen), "a unit's counter");
        far->unit_seen = counter + 1;
        return;
    }
    expect(get32_le(at) == TYPE_TRANSPORT && size >= OVERHEAD, "a datagram that is no message");
    expect(counter >= far->seen, "a counter that was used before");
    far->seen = counter + 1;
    if (is_opened) {
        memcpy(opened, at, size);
        expect(aead_open(&far->open, counter, slice_of(opened + HEADER_SIZE, size - HEADER_SIZE)), "a message that does not open");
        if (world.is_tap) {
            check_frame(opened + HEADER_SIZE, size - OVERHEAD);
            return;
        }
        uint32_t version = opened[HEADER_SIZE] >> 4;
        expect(version == 4 || version == 6, "a message of something else");
    }
}

void check_clear(const uint8_t *at, uint32_t size, const struct tunnel *tunnel) {
    if (world.is_tap) {
        check_clear_frame(at, size, tunnel);
        return;
    }
    expect(size >= tunnel->prefix_size + IPV4_HEADER_SIZE && size <= RECEIVE_BYTES, "a payload of this size");
    uint32_t version = at[tunnel->prefix_size] >> 4;
    expect(version == 4 || version == 6, "a payload of something else");
    bool is_finished = tunnel->number_at || tunnel->has_checksum;
    size_t same = is_finished ? GRE_SIZE : tunnel->prefix_size;
    expect(!memcmp(at, tunnel->prefix[version == 6], same), "a payload without its prefix");
    expect(!tunnel->has_checksum || fold(sum_bytes(slice_of(at, size))) == 0xFFFF, "a payload whose checksum is another");
}

static ssize_t fake_sendmsg(int fd, const struct msghdr *message, int flags) {
    if (fd < 0) {
        errno = EBADF;
        return -1;
    }
    expect(fd >= SOCKET && fd < SOCKET + SOCKETS && !flags && message->msg_iovlen > 0, "a send to something else");
    uint32_t total = 0, segment = 0, count = 0;
    for (size_t i = 0; i < message->msg_iovlen; i++)
        total += (uint32_t)message->msg_iov[i].iov_len;
    if (message->msg_control != NULL)
        for (struct cmsghdr *each = CMSG_FIRSTHDR(message); each != NULL;
             each = CMSG_NXTHDR((struct msghdr *)(uintptr_t)message, each))
            if (each->cmsg_level == IPPROTO_UDP)
                segment = get16_le(CMSG_DATA(each));
    if (!segment)
        segment = total;
    for (size_t i = 0; i < message->msg_iovlen; i++) {
        const uint8_t *at = message->msg_iov[i].iov_base;
        uint32_t rest = (uint32_t)message->msg_iov[i].iov_len;
        while (rest) {
            uint32_t size = rest < segment ? rest : segment;
            expect(size == segment || (i == message->msg_iovlen - 1 && size == rest), "a short one that is not the last");
            if (fd == SOCKET)
                check_datagram(at, size, !count);
            else
                check_clear(at, size, &world.remotes[SEALED + fd - SOCKET - 1].tunnel);
            count++;
            at += size;
            rest -= size;
        }
    }
    expect(count <= TRAIN_COUNT && (count == 1 || total <= 65507), "more than the kernel takes");
    if (world.send_errors && world.send_errors--) {
        errno = world.send_error;
        return -1;
    }
    return total;
}

/* Return whether a possible sender of the delivered packet has *packet*'s source, or a permit for it. */
static bool may_have_sent(const struct peer *source, const uint8_t *packet, uint32_t length) {
    const struct udp *udp = world.raw_udp != NULL ? world.raw_udp : world.lane->in.udp;
    for (uint32_t number = udp->layout ? SEALED : 0; number < (udp->layout ? PEERS : SEALED); number++) {
        const struct peer *peer = &world.remotes[number].peer;
        bool is_it = udp->layout || peer == world.lane->in.keypair->peer;
        bool may_send = source == peer || admissions_find(world.lane->state, peer, slice_of(packet, length)) ||
                        (udp->layout && sources_hold(peer->unsealed, slice_of(packet, length)));
        if (is_it && may_send)
            return true;
    }
    return false;
}

static bool fail_write(void) {
    if (!world.write_errors || !world.write_errors--)
        return false;
    errno = world.write_error;
    return true;
}

static ssize_t fake_writev(int fd, const struct iovec *parts, int count) {
    expect(fd == TUN && count >= 1 && count <= 1 + MAXIMUM_JOINED, "a write to something else");
    size_t total = 0;
    for (int i = 0; i < count; i++)
        total += parts[i].iov_len;
    if (world.is_going_out) { /* to a service of which this node is a server: unchanged */
        expect(count == 1 && total <= READ_BYTES, "a packet of another size");
        return fail_write() ? -1 : (ssize_t)total;
    }
    const uint8_t *virtio = parts[0].iov_base, *packet = virtio + VIRTIO_SIZE;
    if (world.is_tap && world.raw_udp == NULL) {
        check_write(parts, count, (uint32_t)total);
        return fail_write() ? -1 : (ssize_t)total;
    }
    if (parts[0].iov_len == VIRTIO_SIZE && count == 2)
        packet = parts[1].iov_base;
    expect((count > 1 || parts[0].iov_len >= VIRTIO_SIZE + IPV4_HEADER_SIZE) && total >= VIRTIO_SIZE + IPV4_HEADER_SIZE && total <= VIRTIO_SIZE + MAXIMUM_IP, "a write so long");
    bool is_ipv4 = packet[0] >> 4 == 4;
    uint32_t length = (uint32_t)total - VIRTIO_SIZE;
    expect(is_ipv4 || packet[0] >> 4 == 6, "a packet of something else");
    uint32_t told = is_ipv4 ? get16(packet + 2) : (uint32_t)IPV6_HEADER_SIZE + get16(packet + 4);
    expect(length == told, "a length that lies");
    const struct peer *peer = routes_find(world.lane->state, slice_of(packet + (is_ipv4 ? 12 : 8), is_ipv4 ? 4 : 16));
    const struct udp *udp = world.raw_udp != NULL ? world.raw_udp : world.lane->in.udp;
    expect(may_have_sent(peer, packet, length), "a source of somebody else");
    if (virtio[1]) {
        uint32_t headers = get16_le(virtio + 2), segment = get16_le(virtio + 4);
        uint32_t start = get16_le(virtio + 6), offset = get16_le(virtio + 8);
        expect(virtio[0] == NEEDS_CSUM && headers <= (count == 2 && packet == parts[1].iov_base ? parts[1].iov_len : parts[0].iov_len - VIRTIO_SIZE), "headers beyond the first part");
        expect(start + offset + 2 <= headers && segment && length - headers > segment, "a virtio header that lies");
    } else {
        uint32_t start = get16_le(virtio + 6), offset = get16_le(virtio + 8);
        expect(udp->layout || (!virtio[0] && count == 1), "a virtio header that says too much");
        expect(!virtio[0] || (virtio[0] == NEEDS_CSUM && start + offset + 2 <= length), "a checksum beyond the packet");
    }
    return fail_write() ? -1 : (ssize_t)total;
}

static bool fake_is_crowded(int fd) { return fd % 2 != 0; }

static uint32_t fake_arrived(int fd) { return fd % 3 == 0 ? 16u << 20 : 0; }

static const struct io in_memory = {
    fake_read, fake_writev, fake_sendmsg, fake_recvmsg, raw_send_many, raw_receive_many, fake_is_crowded, fake_arrived,
};

/* Setup */

static void begin_key(struct aead *aead, int cipher, uint32_t number, bool seals) {
    uint8_t key[32];
    memset(key, (int)number, sizeof key);
    if (!aead_init(aead, cipher, key, seals))
        refuse_story("no AEAD");
}

static struct aead kept[SEALED][KEYPAIRS][5]; /* of our end */

/* Allocate the memory that all stories of this process use. */
void world_begin(void) {
    const char *missing = crypto_open();
    if (missing != NULL)
        refuse_story(missing);
    world.lane = new_lane(&in_memory);
    if (world.lane == NULL)
        refuse_story("no memory");
    world.lane->out.arena = slice_of(malloc(ARENA_BYTES + ARENA_SLACK), ARENA_BYTES + ARENA_SLACK);
    world.lane->out.pace = &world.tun_pace;
    world.lane->in.buffer = slice_of(malloc(RECEIVE_BYTES + RECEIVE_SLACK), RECEIVE_BYTES + RECEIVE_SLACK);
    world.lane->in.unit = slice_of(malloc(LEAD + MAXIMUM_SEALED), LEAD + MAXIMUM_SEALED);
    world.again = calloc(1, RECEIVE_BYTES);
    for (uint32_t peer = 0; peer < SEALED; peer++)
        for (uint32_t number = 0; number < KEYPAIRS; number++) {
            struct far_end *far = &world.far[peer][number];
            struct aead *near = kept[peer][number];
            uint32_t key = 1 + (peer * KEYPAIRS + number) * 4;
            int cipher = peer == 1 ? 1 : 2;
            begin_key(&near[0], 0, key, true);
            begin_key(&far->open, 0, key, false);
            begin_key(&near[1], 0, key + 1, false);
            begin_key(&far->seal, 0, key + 1, true);
            begin_key(&near[2], cipher, key + 2, true);
            begin_key(&far->unit_open, cipher, key + 2, false);
            for (int each = 0; each < 2; each++) {
                begin_key(&near[3 + each], each + 1, key + 3, false);
                begin_key(&far->unit_seal[each], each + 1, key + 3, true);
            }
        }
}

static void reset_keypair(uint32_t peer, uint32_t number) {
    struct remote *remote = &world.remotes[peer];
    struct keypair *keypair = &remote->keypairs[number];
    struct bulk *bulk = &remote->bulks[number];
    struct far_end *far = &world.far[peer][number];
    const struct aead *near = kept[peer][number];
    *keypair = (struct keypair){
        .seals = {near[0]},
        .open = near[1],
        .peer = &remote->peer,
        .window = &remote->windows[number],
        .bulk = peer ? bulk : NULL,
        .reject_at = 180,
        .rekey_at = 120,
        .rekey_receive_at = 165,
        .local_index = 100 + (peer * KEYPAIRS + number) * INDEX_BUCKETS, /* all in one bucket */
        .remote_index = 7 + peer * KEYPAIRS + number,
    };
    remote->keys[number] = (struct unit_key){
        .seals = {near[2]},
        .cipher = peer == 1 ? 1 : 2,
        .receiver_index = keypair->remote_index,
    };
    remote->sizes[number] = (struct unit_size){.limit = 64, .waits_since = INFINITY};
    *bulk = (struct bulk){
        .key = &remote->keys[number],
        .size = &remote->sizes[number],
        .window = &remote->unit_windows[number],
        .opens = {near[3], near[4]},
        .hello_due = INFINITY,
        .most = MAXIMUM_SEALED,
        .fragments = 255,
        .packet = 1420,
        .told_packet = 1420,
        .has_heard = true,
        .has_said_hello = true,
    };
    far->counter = far->unit_counter = far->seen = far->unit_seen = 0;
    indices_add(world.lane->state, keypair);
}

static void reset_tunnel(uint32_t number) {
    struct remote *remote = &world.remotes[number];
    struct peer *peer = &remote->peer;
    struct tunnel *tunnel = &remote->tunnel;
    if (number >= IPIP)
        raw_reset_peer(number);
    else
        tunnel->layout = (uint8_t)world.sockets[socket_of(number)].layout;
    if (number < IPIP)
        tunnel->protocols[0] = tunnel->protocols[1] = PROTOCOL_UDP;
    if (tunnel->layout == LAYOUT_VXLAN || tunnel->layout == LAYOUT_GENEVE) {
        static const uint8_t mac[6] = {2, 0, 0, 0, 0, 1};
        tunnel->prefix_size = VXLAN_SIZE + ETHERNET_SIZE; /* as long as that of Geneve without options */
        tunnel->identifier = 7;
        tunnel->has_identifier = true;
        memcpy(tunnel->own_mac, mac, sizeof mac);
        for (int i = 0; i < 2; i++) {
            uint8_t *prefix = tunnel->prefix[i];
            prefix[0] = tunnel->layout == LAYOUT_VXLAN ? 8 : 0;
            put16(prefix + 2, tunnel->layout == LAYOUT_VXLAN ? 0 : 0x6558);
            prefix[6] = 7;
            memcpy(prefix + VXLAN_SIZE, mac, sizeof mac);
            put16(prefix + VXLAN_SIZE + 12, i ? 0x86DD : 0x0800);
        }
    }
    remote->unsealed = (struct unsealed){.segment_limit = 65535, .segment_limit_ends = INFINITY};
    peer->tunnel = tunnel;
    peer->unsealed = &remote->unsealed;
    bool is_ipv4 = peer->endpoint.any.sa_family == AF_INET;
    peer->located_size = is_ipv4 ? 4 : 16;
    memcpy(peer->located, is_ipv4 ? (void *)&peer->endpoint.v4.sin_addr : (void *)&peer->endpoint.v6.sin6_addr,
           (size_t)peer->located_size);
    peer->located_layout = tunnel->layout;
    peer->located_has_ports = number < IPIP;
    places_add(world.lane->state, peer);
}

static void reset_peer(uint32_t number) {
    struct remote *remote = &world.remotes[number];
    memset(remote, 0, sizeof *remote);
    remote->path = (struct path){.due = INFINITY, .mtu = 1420};
    remote->asking = (struct asking){.next = INFINITY, .is_worth_it = true};
    remote->local.udp = number < IPIP ? &world.sockets[socket_of(number)] : NULL;
    struct peer *peer = &remote->peer;
    *peer = (struct peer){
        .traffic = &remote->traffic,
        .contact = &remote->contact,
        .path = &remote->path,
        .asking = &remote->asking,
        .local = &remote->local,
        .slots = &remote->slots,
        .number = 1 + (int)number,
    };
    uint8_t *received = remote->local.received;
    if (number != SEALED - 1 && number != GRE_OVER_IPV6) {
        peer->endpoint.v4 = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)(51820 + number))};
        put_address((uint8_t *)&peer->endpoint.v4.sin_addr, 4, 200 + number);
        peer->endpoint_size = sizeof peer->endpoint.v4;
        put_address(received, 4, 250);
    } else {
        peer->endpoint.v6 = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_port = htons(51820)};
        put_address((uint8_t *)&peer->endpoint.v6.sin6_addr, 6, 200 + (number == GRE_OVER_IPV6));
        peer->endpoint_size = sizeof peer->endpoint.v6;
        put_address(received, 6, 250);
        remote->local.source_level = IPPROTO_IPV6;
        remote->local.source_kind = IPV6_PKTINFO;
        remote->local.source_size = 20;
    }
    remote->local.received_size = peer->endpoint_size == sizeof peer->endpoint.v4 ? 4 : 16;
    if (number >= SEALED) {
        reset_tunnel(number);
        return;
    }
    for (uint32_t each = 0; each < KEYPAIRS; each++)
        reset_keypair(number, each);
    remote->slots.current = remote->slots.settled = &remote->keypairs[0];
}

/* Reset everything for the beginning of a story. */
void world_reset(void) {
    struct lane *lane = world.lane;
    struct in *in = &lane->in;
    for (int i = 0; i < UNITS_TOTAL; i++)
        in->reassembly.partials[i] = (struct partial){.buffer = in->reassembly.partials[i].buffer};
    in->reassembly.used = 0;
    in->is_going = false;
    in->keypair = NULL;
    in->current = 0;
    lane->out.is_going = false;
    lane->out.queue_count = lane->out.refused_count = lane->out.refused_size = lane->out.sends = 0;
    lane->out.look = NULL;
    lane->drop_count = 0;
    lane->tun = lane->tun_out = TUN;
    memset(lane->state->indices, 0, sizeof lane->state->indices);
    lane->state->mtu = 1420;
    lane->state->segments = lane->state->joins_udp = lane->state->takes_units = true;
    routes_forget();
    world.pace = world.tun_pace = (struct pace){0};
    static const int layouts[SOCKETS] = {0, LAYOUT_BARE, LAYOUT_VXLAN, LAYOUT_GENEVE};
    for (int i = 0; i < SOCKETS; i++)
        world.sockets[i] = (struct udp){
            .closes_at = INFINITY,
            .discovery = &world.discovery,
            .pace = &world.pace,
            .fd = SOCKET + i,
            .layout = layouts[i],
            .protocol = PROTOCOL_UDP,
            .spread = {&world.sockets[i], &world.sockets[i]},
            .spread_count = i ? 2 : 0,
        };
    raw_reset();
    taps_reset();
    memset(lane->state->places, 0, sizeof lane->state->places);
    lane->state->inherits_ttl = false;
    world.discovery.omits = false;
    world.receive_count = world.packet_count = world.again_size = 0;
    world.send_errors = world.write_errors = 0;
    world.read_error = world.receive_error = 0;
    world.now = 1;
    for (int i = 0; i < UNITS; i++)
        world.units[i].count = 0;
    for (uint32_t peer = 0; peer < PEERS; peer++)
        reset_peer(peer);
    for (uint32_t peer = 0; peer < PEERS; peer++)
        for (uint32_t version = 4; version <= 6; version += 2) {
            uint8_t address[16];
            put_address(address, version, peer);
            routes_add(lane->state, slice_of(address, version == 4 ? 4 : 16), &world.remotes[peer].peer);
        }
    services_reset();
    world.stories++;
}
