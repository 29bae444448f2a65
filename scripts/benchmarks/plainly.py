"""The work that overlay.forwarding.offload does with numpy, in plain Python, as fast as we could make it.

It is here for comparison: for TCP over IPv4 without IP options, and without the rare cases.  A checksum is computed as
the remainder of one large integer, which is the fastest way in Python.
"""

from __future__ import annotations

from overlay.forwarding.offload.flow import HEADER_SIZE, OVERHEAD
from overlay.wire.messages import TAG_SIZE
from overlay.wire.tcp import ACK, FIN, PSH

L4 = 20  # bytes of the IPv4 header


def split(packet: memoryview, size: int, segment: int, stride: int, out: bytearray) -> int:
    """Write the segments of a super-packet with *size* bytes of headers into *out*, *stride* bytes apart;
    return how many.

    Before each segment there is room for the header of a transport message, as in a Train.
    """
    number = int.from_bytes(packet[L4 + 4 : L4 + 8], "big")
    identifier = packet[4] << 8 | packet[5]
    head = bytearray(packet[:size])
    flags = head[L4 + 13]
    head[L4 + 13] = flags & ~(FIN | PSH)
    pseudo = int.from_bytes(head[12:20], "little") + (head[9] << 8)
    to_int, end, count = int.from_bytes, len(packet), 0
    for start in range(size, end, segment):
        payload = packet[start : start + segment]
        length = size + len(payload)
        head[2:6] = (length << 16 | identifier + count & 0xFFFF).to_bytes(4, "big")
        head[10:12] = b"\0\0"
        head[10:12] = (0xFFFF - to_int(head[:L4], "little") % 0xFFFF).to_bytes(2, "little")
        head[L4 + 4 : L4 + 8] = (number + start - size & 0xFFFFFFFF).to_bytes(4, "big")
        if start + segment >= end:
            head[L4 + 13] = flags
        head[L4 + 16 : L4 + 18] = b"\0\0"
        l4_length = length - L4
        total = pseudo + ((l4_length & 0xFF) << 8 | l4_length >> 8)
        total += to_int(head[L4:], "little") + to_int(payload, "little")
        head[L4 + 16 : L4 + 18] = (0xFFFF - total % 0xFFFF).to_bytes(2, "little")
        at = count * stride + HEADER_SIZE
        out[at : at + size] = head
        out[at + size : at + length] = payload
        count += 1
    return count


def is_one_run(view: memoryview, stride: int, count: int, last: int) -> bool:
    """Return whether *count* opened datagrams, *stride* bytes apart, are one super-packet whose checksums hold.

    The last ends after *last* bytes.
    """
    to_int = int.from_bytes
    first = view[HEADER_SIZE : stride - TAG_SIZE]
    size = L4 + (first[L4 + 12] >> 4) * 4
    segment = (first[2] << 8 | first[3]) - size
    number, identifier = to_int(first[L4 + 4 : L4 + 8], "big"), first[4] << 8 | first[5]
    same = bytes(first[6:10]), bytes(first[12 : L4 + 4]), bytes(first[L4 + 8 : L4 + 13])
    window, options = bytes(first[L4 + 14 : L4 + 16]), bytes(first[L4 + 20 : size])
    pseudo = to_int(first[12:20], "little") + (first[9] << 8)
    for row in range(count):
        at = row * stride + HEADER_SIZE
        room = (last if row == count - 1 else stride) - OVERHEAD
        length = view[at + 2] << 8 | view[at + 3]
        packet = view[at : at + length]
        if length > room or (length != size + segment and row != count - 1) or length <= size:
            return False
        if (bytes(packet[6:10]), bytes(packet[12 : L4 + 4]), bytes(packet[L4 + 8 : L4 + 13])) != same:
            return False
        if packet[L4 + 14 : L4 + 16] != window or packet[L4 + 20 : size] != options:
            return False
        if packet[0] != 0x45 or packet[L4 + 13] & ~PSH != ACK or (packet[L4 + 13] & PSH and row != count - 1):
            return False
        if to_int(packet[L4 + 4 : L4 + 8], "big") != number + row * segment & 0xFFFFFFFF:
            return False
        if packet[4] << 8 | packet[5] != identifier + row & 0xFFFF or to_int(packet[:L4], "little") % 0xFFFF:
            return False
        l4_length = length - L4
        total = pseudo + ((l4_length & 0xFF) << 8 | l4_length >> 8) + to_int(packet[L4:], "little")
        if total % 0xFFFF:
            return False
    return True
