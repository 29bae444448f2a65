"""IP packets built and checked the slow way: a second opinion on everything
that overlay.forwarding.offload.segments computes.

Nothing here is shared with the code under test: checksums are sums of whole packets,
segmentation goes packet by packet.
"""

from __future__ import annotations

import functools
import struct
from dataclasses import dataclass
from ipaddress import ip_address

TCP, UDP = 6, 17
FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = (1 << bit for bit in range(8))
PLAIN = bytes(10)
DONT_FRAGMENT = 0x4000


def ones_complement_sum(data):
    """Return the sum of RFC 1071.

    Carries that are brought round leave a number as it is modulo 0xFFFF, and 2**16 is 1 by it: the sum of the words is
    *data* as one number.  Word by word it would be half of the time of tests; test_packets.py compares the two.
    """
    if len(data) % 2:
        data += b"\0"
    number = int.from_bytes(data, "big")
    return number % 0xFFFF or (0xFFFF if number else 0)


def internet_checksum(data):
    return 0xFFFF - ones_complement_sum(data)


def pseudo_header(packet, length):
    """Return the pseudo header of the TCP or UDP *length* bytes in *packet*."""
    if packet[0] >> 4 == 4:
        return packet[12:20] + struct.pack("!BBH", 0, packet[9], length)
    return packet[8:40] + struct.pack("!II", length, protocol_of(packet))


@functools.lru_cache(1024)
def packed(address):
    """Return the bytes of *address*, cached: a story sends thousands of packets between few addresses."""
    return ip_address(address).packed


def ipv4(
    payload,
    source="10.0.0.1",
    destination="10.0.0.2",
    *,
    protocol=UDP,
    identifier=1,
    ttl=64,
    tos=0,
    fragment=DONT_FRAGMENT,
    options=b"",
):
    ihl = 5 + len(options) // 4
    header = struct.pack(
        "!BBHHHBBH4s4s",
        0x40 | ihl,
        tos,
        ihl * 4 + len(payload),
        identifier & 0xFFFF,
        fragment,
        ttl,
        protocol,
        0,
        packed(source),
        packed(destination),
    )
    header += options
    return header[:10] + struct.pack("!H", internet_checksum(header)) + header[12:] + payload


def ipv6(
    payload,
    source="fd00::1",
    destination="fd00::2",
    *,
    protocol=UDP,
    tos=0,
    flow_label=0,
    ttl=64,
):
    first = 6 << 28 | tos << 20 | flow_label
    addresses = packed(source) + packed(destination)
    return struct.pack("!IHBB", first, len(payload), protocol, ttl) + addresses + payload


def l4_start(packet):
    return _l4(packet)[0]


def protocol_of(packet):
    """Return the protocol number of the payload behind IPv4, or behind IPv6 and its hop-by-hop and
    destination options.
    """
    return _l4(packet)[1]


def _l4(packet):
    if packet[0] >> 4 == 4:
        return (packet[0] & 15) * 4, packet[9]
    at, protocol = 40, packet[6]
    while protocol in {0, 60}:
        at, protocol = at + 8 + packet[at + 1] * 8, packet[at]
    return at, protocol


def with_l4_checksum(packet):
    """Return *packet* with its TCP or UDP checksum set, computed from nothing but the packet."""
    start = l4_start(packet)
    protocol = protocol_of(packet)
    field = start + (16 if protocol == TCP else 6)
    cleared = packet[:field] + b"\0\0" + packet[field + 2 :]
    value = internet_checksum(pseudo_header(packet, len(packet) - start) + cleared[start:])
    if protocol == UDP and value == 0:
        value = 0xFFFF
    return packet[:field] + struct.pack("!H", value) + packet[field + 2 :]


def tcp(
    payload=b"",
    *,
    version=4,
    ports=(1000, 2000),
    sequence=1,
    acknowledgement=1,
    flags=ACK,
    window=1000,
    tcp_options=b"",
    urgent=0,
    reserved=0,
    **ip,
):
    """Return a whole TCP packet, its checksums right.  *ip* are arguments of ipv4() or ipv6()."""
    offset = (5 + len(tcp_options) // 4) << 4 | reserved
    sequence, acknowledgement = sequence % 2**32, acknowledgement % 2**32
    segment = struct.pack("!HHIIBBHHH", *ports, sequence, acknowledgement, offset, flags, window, 0, urgent)
    build = ipv4 if version == 4 else ipv6
    return with_l4_checksum(build(segment + tcp_options + payload, protocol=TCP, **ip))


def with_options(packet, options=bytes([1, 4, 0, 0, 0, 0]), kind=60):
    """Return an IPv6 packet with destination options (60), or hop-by-hop options (0), of 8 n - 2 bytes put into it."""
    header = bytes([packet[6], (len(options) + 2) // 8 - 1]) + options
    return with_total_length(packet[:6] + bytes([kind]) + packet[7:40] + header + packet[40:])


def udp(payload=b"", *, version=4, ports=(1000, 2000), **ip):
    """Return a whole UDP packet, its checksums right.  *ip* are arguments of ipv4() or ipv6()."""
    datagram = struct.pack("!HHHH", *ports, 8 + len(payload), 0) + payload
    build = ipv4 if version == 4 else ipv6
    return with_l4_checksum(build(datagram, protocol=UDP, **ip))


def with_total_length(packet):
    """Return *packet* with its IP length (and IPv4 header checksum) set to the actual values."""
    if packet[0] >> 4 == 6:
        return packet[:4] + struct.pack("!H", len(packet) - 40) + packet[6:]
    packet = packet[:2] + struct.pack("!H", len(packet)) + packet[4:]
    return with_ip_checksum(packet)


def with_ip_checksum(packet):
    if packet[0] >> 4 == 6:
        return packet
    header = packet[:10] + b"\0\0" + packet[12 : l4_start(packet)]
    return packet[:10] + struct.pack("!H", internet_checksum(header)) + packet[12:]


def as_super_packet(packet, segment):
    """Return (packet, virtio header) as the kernel hands a super-packet over: its L4 checksum left partial."""
    start = l4_start(packet)
    protocol = protocol_of(packet)
    offset = 16 if protocol == TCP else 6
    header = start + ((packet[start + 12] >> 4) * 4 if protocol == TCP else 8)
    kind = 5 if protocol == UDP else {4: 1, 6: 4}[packet[0] >> 4]
    if protocol == TCP and packet[start + 13] & CWR:
        kind |= 0x80
    partial = struct.pack("!H", ones_complement_sum(pseudo_header(packet, len(packet) - start)))
    packet = packet[: start + offset] + partial + packet[start + offset + 2 :]
    return packet, struct.pack("<BBHHHH", 1, kind, header, segment, start, offset)


def is_ip_checksum_right(packet):
    return packet[0] >> 4 == 6 or ones_complement_sum(packet[: l4_start(packet)]) == 0xFFFF


def is_l4_checksum_right(packet):
    start = l4_start(packet)
    return ones_complement_sum(pseudo_header(packet, len(packet) - start) + packet[start:]) == 0xFFFF


def kernel_segments(packet, virtio):
    """Return the packets that the kernel makes of one write into a tun, after checking what the kernel relies on."""
    flags, kind, header_size, segment, start, offset = struct.unpack("<BBHHHH", virtio)
    if kind == 0:
        if not flags & 1:
            return [packet]
        return [_completed(packet, start, offset)]
    assert flags & 1
    base = kind & 0x7F
    protocol = TCP if base in {1, 4} else UDP
    assert base == (5 if protocol == UDP else {4: 1, 6: 4}[packet[0] >> 4])
    assert start == l4_start(packet)
    assert offset == (16 if protocol == TCP else 6)
    assert (protocol_of(packet)) == protocol
    assert header_size == start + ((packet[start + 12] >> 4) * 4 if protocol == TCP else 8)
    assert is_ip_checksum_right(packet)
    total = (
        int.from_bytes(packet[2:4], "big") if packet[0] >> 4 == 4 else 40 + int.from_bytes(packet[4:6], "big")
    )
    assert total == len(packet) <= 65535
    if protocol == UDP:
        assert int.from_bytes(packet[start + 4 : start + 6], "big") == len(packet) - start
    partial = ones_complement_sum(pseudo_header(packet, len(packet) - start))
    assert int.from_bytes(packet[start + offset : start + offset + 2], "big") == partial
    assert len(packet) - header_size > 0
    return _cut(packet, protocol, header_size, segment)


def kernel_frames(frame, virtio):
    """Return the frames that the kernel makes of one write into a tap."""
    before = 14
    while frame[before - 2 : before] in {b"\x81\0", b"\x88\xa8"}:
        before += 4
    flags, kind, header_size, segment, start, offset = struct.unpack("<BBHHHH", virtio)
    if not flags and not kind:
        return [frame]
    inner = struct.pack(
        "<BBHHHH", flags, kind, header_size - before if kind else 0, segment, start - before, offset
    )
    return [frame[:before] + packet for packet in kernel_segments(frame[before:], inner)]


def as_super_frame(packet, segment, before=14):
    """Return (packet, virtio header) as as_super_packet() does, for a tap that has *before* bytes before the packet."""
    packet, virtio = as_super_packet(packet, segment)
    flags, kind, header_size, segment, start, offset = struct.unpack("<BBHHHH", virtio)
    return packet, struct.pack("<BBHHHH", flags, kind, header_size + before, segment, start + before, offset)


def with_ethertype(packet):
    """Return an IP packet with its EtherType before it, and anything else as it is."""
    return {4: b"\x08\0", 6: b"\x86\xdd"}.get(packet[0] >> 4 if len(packet) >= 20 else 0, b"") + packet


def _completed(packet, start, offset):
    value = internet_checksum(packet[start:])
    if value == 0 and offset == 6:
        value = 0xFFFF
    return packet[: start + offset] + struct.pack("!H", value) + packet[start + offset + 2 :]


def _cut(packet, protocol, header_size, segment):
    start = l4_start(packet)
    payload = packet[header_size:]
    pieces = [payload[at : at + segment] for at in range(0, len(payload), segment)]
    segments = []
    for number, piece in enumerate(pieces):
        head = bytearray(packet[:header_size])
        if head[0] >> 4 == 4:
            identifier = int.from_bytes(head[4:6], "big") + number
            head[4:6] = (identifier % 2**16).to_bytes(2, "big")
        if protocol == TCP:
            sequence = int.from_bytes(head[start + 4 : start + 8], "big") + number * segment
            head[start + 4 : start + 8] = (sequence % 2**32).to_bytes(4, "big")
            if number > 0:
                head[start + 13] &= ~CWR
            if number < len(pieces) - 1:
                head[start + 13] &= ~(FIN | PSH)
        else:
            head[start + 4 : start + 6] = (8 + len(piece)).to_bytes(2, "big")
        segments.append(with_l4_checksum(with_total_length(bytes(head) + piece)))
    return segments


@dataclass(frozen=True)
class Parsed:
    """A TCP or UDP packet, described by what decides whether it may be joined with another."""

    alike: tuple  # must be equal
    header_size: int
    identifier: int | None
    sequence: int | None
    flags: int
    size: int  # of the payload


def parsed(packet):
    """Return the fields of a packet that could be joined, None for one that is never joined."""
    if packet[0] >> 4 == 4:
        start, protocol = l4_start(packet), packet[9]
        if start < 20 or int.from_bytes(packet[6:8], "big") & 0x3FFF:
            return None
        network = (packet[:2], packet[6:10], packet[12:start])
        identifier, total = int.from_bytes(packet[4:6], "big"), int.from_bytes(packet[2:4], "big")
    else:
        start, protocol = 40, packet[6]
        network = (packet[:4], packet[6:40])
        identifier, total = None, 40 + int.from_bytes(packet[4:6], "big")
    if protocol not in {TCP, UDP} or total != len(packet):
        return None
    smallest = start + (20 if protocol == TCP else 8)
    if len(packet) < smallest or not is_ip_checksum_right(packet) or not is_l4_checksum_right(packet):
        return None
    l4 = packet[start:]
    if protocol == UDP:
        if l4[6:8] == b"\0\0" or int.from_bytes(l4[4:6], "big") != len(l4):
            return None
        return Parsed((network, l4[:4]), start + 8, identifier, None, ACK, len(l4) - 8)
    size = (l4[12] >> 4) * 4
    if not 20 <= size <= len(l4):
        return None
    alike = (network, l4[:4], l4[8:13], l4[13] & ~PSH, l4[14:16], l4[18:size])
    return Parsed(alike, start + size, identifier, int.from_bytes(l4[4:8], "big"), l4[13], len(l4) - size)


def join_slowly(packets):
    """Return how *packets* may be joined, greedily from the first on: lists of neighbours
    that make one super-packet.
    """
    groups = []
    for packet in packets:
        if groups and _may_follow(groups[-1], packet):
            groups[-1].append(packet)
        else:
            groups.append([packet])
    return groups


def _may_follow(group, packet):
    first, last, new = parsed(group[0]), parsed(group[-1]), parsed(packet)
    if first is None or new is None:
        return False
    if new.alike != first.alike or not 0 < new.size <= first.size or last.size != first.size:
        return False
    if first.identifier is not None and new.identifier != (last.identifier + 1) % 2**16:
        return False
    if first.sequence is not None and new.sequence != (last.sequence + last.size) % 2**32:
        return False
    if last.flags & ~ECE != ACK or new.flags & ~(PSH | ECE) != ACK:
        return False
    if len(group) == 64:
        return False
    return first.header_size + sum(parsed(each).size for each in group) + new.size <= 65535
