/* IP, TCP and UDP headers (RFC 791, RFC 8200, RFC 9293, RFC 768), as in offload/flow.py, wire/ip.py and wire/mss.py. */
#include "packet.h"

enum { ICMP_SIZE = 8, UNREACHABLE = 3, FRAGMENTATION_NEEDED = 4, TOO_BIG = 2 };
enum { FLAG_SYN = 2, FLAG_PSH = 8, OPTION_END = 0, OPTION_NOTHING = 1, OPTION_MSS = 2, MSS_SIZE = 4 };
enum { HOP_BY_HOP = 0, ROUTING = 43, FRAGMENT = 44, DESTINATION_OPTIONS = 60 };
enum { NOT_ECT, ECT_1, ECT_0, CE };

/* Find the headers of a whole, unfragmented TCP or UDP packet; false for any other. */
bool flow_of(struct slice packet, struct flow *flow) {
    uint32_t length = packet.size;
    if (length < IPV4_HEADER_SIZE)
        return false;
    uint32_t l4, protocol, version = version_of(packet);
    if (version == 4) {
        l4 = (read8(packet, 0) & 15u) * 4;
        protocol = read8(packet, 9);
        if (read8(packet, 6) & 0x3F || read8(packet, 7) || l4 < IPV4_HEADER_SIZE)
            return false;
    } else if (version == 6 && length >= IPV6_HEADER_SIZE) {
        l4 = IPV6_HEADER_SIZE;
        protocol = read8(packet, 6);
    } else {
        return false;
    }
    uint32_t size;
    if (protocol == PROTOCOL_TCP && length >= l4 + TCP_HEADER_SIZE) {
        size = l4 + (read8(packet, l4 + 12) >> 4) * 4u;
        if (size < l4 + TCP_HEADER_SIZE || size > length)
            return false;
    } else if (protocol == PROTOCOL_UDP && length >= l4 + UDP_HEADER_SIZE) {
        size = l4 + UDP_HEADER_SIZE;
    } else {
        return false;
    }
    *flow = (struct flow){(uint8_t)version, (uint8_t)protocol, l4, size};
    return true;
}

/* Return the checksum of an IPv4 header whose field is zero. */
uint32_t check_ipv4(struct slice header) {
    return fold(sum_bytes(slice_part(header, 0, (read8(header, 0) & 15u) * 4))) ^ 0xFFFF;
}

/* Return the sum of the pseudo header, to be added to that of the TCP or UDP header and payload. */
uint64_t pseudo_sum(struct slice packet, const struct flow *flow, uint32_t l4_length) {
    uint8_t rest[4] = {0, flow->protocol, (uint8_t)(l4_length >> 8), (uint8_t)l4_length};
    uint64_t addresses =
        flow->version == 4 ? sum_bytes(slice_part(packet, 12, 8)) : sum_bytes(slice_part(packet, 8, 32));
    return addresses + sum_bytes(slice_of(rest, sizeof rest));
}

uint32_t packet_length(struct slice payload) {
    uint32_t size = payload.size;
    if (size >= IPV4_HEADER_SIZE && version_of(payload) == 4) {
        uint32_t length = read16(payload, 2), header = (read8(payload, 0) & 15u) * 4;
        return header >= IPV4_HEADER_SIZE && header <= length && length <= size ? length : 0;
    }
    if (size >= IPV6_HEADER_SIZE && version_of(payload) == 6) {
        uint32_t length = IPV6_HEADER_SIZE + read16(payload, 4);
        return length <= size ? length : 0;
    }
    return 0;
}

bool is_extension(uint32_t protocol) {
    return protocol == HOP_BY_HOP || protocol == ROUTING || protocol == FRAGMENT || protocol == DESTINATION_OPTIONS;
}

/* Return where the TCP header of a packet begins; 0 if the packet has none, or only part of one. */
static uint32_t tcp_at(struct slice packet) {
    uint32_t protocol, start, length = packet.size;
    if (length >= IPV4_HEADER_SIZE && version_of(packet) == 4) {
        protocol = read8(packet, 9);
        start = (read8(packet, 0) & 15u) * 4;
        if (read8(packet, 6) & 0x1F || read8(packet, 7) || start < IPV4_HEADER_SIZE)
            return 0;
    } else if (length >= IPV6_HEADER_SIZE && version_of(packet) == 6) {
        protocol = read8(packet, 6);
        start = IPV6_HEADER_SIZE;
        while (is_extension(protocol)) {
            if (start + 8 > length)
                return 0;
            if (protocol == FRAGMENT && (read8(packet, start + 2) || read8(packet, start + 3) & 0xF8))
                return 0;
            uint32_t size = protocol == FRAGMENT ? 8 : (read8(packet, start + 1) + 1u) * 8;
            protocol = read8(packet, start);
            start += size;
        }
    } else {
        return 0;
    }
    return protocol == PROTOCOL_TCP && start + TCP_HEADER_SIZE <= length ? start : 0;
}

/* Return where the MSS is in the TCP header at *start*; 0 if it has none. */
static uint32_t mss_at(struct slice packet, uint32_t start) {
    uint32_t end = start + (read8(packet, start + 12) >> 4) * 4u, at = start + TCP_HEADER_SIZE;
    if (end > packet.size)
        end = packet.size;
    while (at + 1 < end && read8(packet, at) != OPTION_END) {
        if (read8(packet, at) == OPTION_NOTHING) {
            at++;
            continue;
        }
        uint32_t size = read8(packet, at + 1);
        if (read8(packet, at) == OPTION_MSS)
            return size == MSS_SIZE && at + MSS_SIZE <= end ? at + 2 : 0;
        if (size < 2)
            return 0;
        at += size;
    }
    return 0;
}

static uint32_t swapped(uint32_t value) { return (value & 0xFF) << 8 | value >> 8; }

/* Make a TCP SYN announce no more than fits *mtu*; any other packet stays unchanged (RFC 6691 section 2). */
void clamp_syn(struct slice packet, uint32_t mtu, bool is_partial) {
    uint32_t protocol = version_of(packet) == 4 ? read8(packet, 9) : read8(packet, 6);
    if (protocol != PROTOCOL_TCP && (version_of(packet) == 4 || !is_extension(protocol)))
        return;
    uint32_t start = tcp_at(packet);
    if (!start || !(read8(packet, start + 13) & FLAG_SYN))
        return;
    uint32_t most;
    if (version_of(packet) == 6)
        most = (mtu > IPV6_MINIMUM_MTU ? mtu : IPV6_MINIMUM_MTU) - IPV6_HEADER_SIZE - TCP_HEADER_SIZE;
    else
        most = mtu - IPV4_HEADER_SIZE - TCP_HEADER_SIZE;
    uint32_t at = mss_at(packet, start);
    if (!at || read16(packet, at) <= most)
        return;
    if (!is_partial) { /* RFC 1624 section 3; two bytes at an odd offset belong to two words */
        uint32_t field = start + 16, before = read16(packet, at), after = most;
        if ((at - field) & 1) {
            before = swapped(before);
            after = swapped(after);
        }
        write16(packet, field, fold16((read16(packet, field) ^ 0xFFFFu) + (before ^ 0xFFFF) + after) ^ 0xFFFF);
    }
    write16(packet, at, most);
}

/* Write the byte beside the version in a packet's header; the checksum of IPv4 follows (RFC 1624 section 3). */
static void put_traffic_class(struct slice packet, uint32_t value) {
    if (version_of(packet) == 6) {
        write8(packet, 0, 0x60 | value >> 4);
        write8(packet, 1, (read8(packet, 1) & 0xF) | value << 4);
        return;
    }
    uint32_t before = read8(packet, 1);
    write8(packet, 1, value);
    write16(packet, 10, fold16((read16(packet, 10) ^ 0xFFFFu) + (before ^ 0xFFFF) + value) ^ 0xFFFF);
}

static uint32_t traffic_class_of(struct slice packet) {
    return version_of(packet) == 4 ? read8(packet, 1) : (read8(packet, 0) & 0xFu) << 4 | read8(packet, 1) >> 4;
}

/* Write the DSCP of a packet (wire.dscp). */
void set_dscp(struct slice packet, uint32_t dscp) {
    put_traffic_class(packet, dscp << 2 | (traffic_class_of(packet) & 3));
}

/* Set the ECN field with which a packet leaves the tunnel (RFC 6040 section 4.2); false if it must be dropped. */
bool take_outer_ecn(struct slice packet, uint32_t outer) {
    uint32_t inner = traffic_class_of(packet) & 3, value = inner;
    if (outer == CE) {
        if (inner == NOT_ECT)
            return false;
        value = CE;
    } else if (outer == ECT_1 && inner == ECT_0) {
        value = ECT_1;
    }
    if (value != inner)
        put_traffic_class(packet, (traffic_class_of(packet) & 0xFC) | value);
    return true;
}

/* Return whether *packet* is an ICMP error with an MTU (wire.icmp: told_mtu). */
bool tells_mtu(struct slice packet) {
    if (version_of(packet) == 4) {
        uint32_t header = (read8(packet, 0) & 15u) * 4;
        return read8(packet, 9) == PROTOCOL_ICMP && packet.size >= header + ICMP_SIZE &&
               read8(packet, header) == UNREACHABLE && read8(packet, header + 1) == FRAGMENTATION_NEEDED;
    }
    return read8(packet, 6) == PROTOCOL_ICMPV6 && packet.size >= IPV6_HEADER_SIZE + ICMP_SIZE &&
           read8(packet, IPV6_HEADER_SIZE) == TOO_BIG && read8(packet, IPV6_HEADER_SIZE + 1) == 0;
}

/* zlib's CRC-32, four bits at a time, which suffices for few bytes. */
static uint32_t crc32(struct slice slice) {
    static const uint32_t table[16] = {
        0x00000000, 0x1DB71064, 0x3B6E20C8, 0x26D930AC, 0x76DC4190, 0x6B6B51F4, 0x4DB26158, 0x5005713C,
        0xEDB88320, 0xF00F9344, 0xD6D6A3E8, 0xCB61B38C, 0x9B64C2B0, 0x86D3D2D4, 0xA00AE278, 0xBDBDF21C,
    };
    uint32_t crc = UINT32_MAX;
    for (const uint8_t *at; slice_take(&slice, 1, &at);) {
        crc ^= *at;
        crc = table[crc & 15] ^ crc >> 4;
        crc = table[crc & 15] ^ crc >> 4;
    }
    return ~crc;
}

static bool has_ports(uint32_t protocol) {
    return protocol == PROTOCOL_TCP || protocol == PROTOCOL_UDP || protocol == PROTOCOL_SCTP;
}

/* Return a number that is the same for all packets of one flow (underlay.flows). */
uint32_t hash_flow(struct slice packet) {
    uint32_t from = 8, to = has_ports(read8(packet, 6)) ? 44 : 40;
    if (version_of(packet) == 4) {
        from = 12;
        bool is_plain = read8(packet, 0) == 0x45 && !(read8(packet, 6) & 0x3F) && !read8(packet, 7);
        to = is_plain && has_ports(read8(packet, 9)) ? 24 : 20;
    }
    return crc32(slice_part(packet, from, (to < packet.size ? to : packet.size) - from));
}

/* Return whether the packet after *packet*, the last of a receive, may be joined with it (offload.flow). */
bool may_go_on(struct slice packet) {
    if (packet.size < 74)
        return false;
    bool is_ipv4 = version_of(packet) == 4;
    if (read8(packet, is_ipv4 ? 9 : 6) != PROTOCOL_TCP)
        return true;
    return !(read8(packet, (is_ipv4 ? (read8(packet, 0) & 15u) * 4 : IPV6_HEADER_SIZE) + 13) & FLAG_PSH);
}

uint32_t gso_type_of(const struct flow *flow) {
    if (flow->protocol != PROTOCOL_TCP)
        return GSO_UDP_L4;
    return flow->version == 4 ? GSO_TCPV4 : GSO_TCPV6;
}
