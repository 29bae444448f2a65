"""Hostile and odd packets, for every inbound path.

Each row turns a genuine packet into one that a peer, or an attacker in its place, may send.  Its treatment must not
depend on the packets around it; ``REFUSED`` says for which reasons some are refused on every path.
"""

from __future__ import annotations

from tests import packets


def with_byte(packet, at, value):
    return packet[:at] + bytes([value]) + packet[at + 1 :]


def flipped(packet, at):
    return with_byte(packet, at, packet[at] ^ 1)


def _sources(version):
    """Return a row for each byte of the source address."""
    first, size = (12, 4) if version == 4 else (8, 16)
    return {f"source byte {n}": (lambda packet, at=first + n: flipped(packet, at)) for n in range(size)}


def _lengths(version):
    at = 2 if version == 4 else 4
    return {
        "length beyond the end": lambda packet: packet[:at] + b"\xff\xff" + packet[at + 2 :],
        "length one too large": lambda packet: packet[:at] + _plus(packet[at : at + 2], 1) + packet[at + 2 :],
        "length 256 too large": lambda packet: (
            packet[:at] + _plus(packet[at : at + 2], 256) + packet[at + 2 :]
        ),
        "length of 0": lambda packet: packet[:at] + b"\0\0" + packet[at + 2 :],
        "length one smaller": lambda packet: packet[:at] + _plus(packet[at : at + 2], -1) + packet[at + 2 :],
        "cut short": lambda packet: packet[:-4],
        "header alone": lambda packet: packet[: 20 if version == 4 else 40],
        "shorter than its header": lambda packet: packet[: 19 if version == 4 else 39],
        "one byte": lambda packet: packet[:1],
        "zeros behind it": lambda packet: packet + bytes(16),
    }


def _plus(field, number):
    return (int.from_bytes(field, "big") + number & 0xFFFF).to_bytes(2, "big")


def _common(version):
    return {
        "genuine": lambda packet: packet,
        **{
            f"version {n}": (lambda packet, n=n: with_byte(packet, 0, n << 4 | packet[0] & 15))
            for n in (0, 1, 5, 15)
        },
        "other version": lambda packet: with_byte(packet, 0, packet[0] ^ 0x20),
        "all zeros": lambda packet: bytes(len(packet)),
        "all ones": lambda packet: b"\xff" * len(packet),
        "traffic class": lambda packet: with_byte(packet, 1, packet[1] ^ 0x30),
        "protocol tcp": lambda packet: with_byte(packet, 9 if version == 4 else 6, packets.TCP),
        "syn": lambda packet: _syn(packet, version),
        "damaged payload": lambda packet: flipped(packet, len(packet) - 1),
        "damaged checksum": lambda packet: flipped(packet, (20 if version == 4 else 40) + 7),
        "no time to live": lambda packet: with_byte(packet, 8 if version == 4 else 7, 0),
    }


def _syn(packet, version):
    """Return a SYN at least as large as *packet*, with an MSS that is too large for any tunnel."""
    source, destination = (packet[12:16], packet[16:20]) if version == 4 else (packet[8:24], packet[24:40])
    made = packets.tcp(
        version=version, flags=packets.SYN, tcp_options=bytes([2, 4, 0xFF, 0xFF]),
        source=source, destination=destination,
    )  # fmt: skip
    return made.ljust(len(packet), b"\0")


_ONLY_4 = {
    "header length of 0": lambda packet: with_byte(packet, 0, 0x40),
    "header length of 4": lambda packet: with_byte(packet, 0, 0x44),
    "header length beyond the end": lambda packet: with_byte(packet[:40], 0, 0x4F),
    "first fragment": lambda packet: packet[:6] + b"\x20\0" + packet[8:],
    "later fragment": lambda packet: packet[:6] + b"\0\xb9" + packet[8:],
    "damaged header checksum": lambda packet: flipped(packet, 10),
}
_ONLY_6 = {
    "hop-by-hop options": lambda packet: with_byte(packet, 6, 0),
    "fragment header": lambda packet: with_byte(packet, 6, 44),
    "no next header": lambda packet: with_byte(packet, 6, 59),
}


def rows(version):
    """Return the rows for packets of IP *version*, by name."""
    only = _ONLY_4 if version == 4 else _ONLY_6
    return {**_common(version), **_sources(version), **_lengths(version), **only}


_REFUSED = {
    "version 5": "inner_version",
    "version 15": "inner_version",
    "length beyond the end": "inner_length",
    "length one too large": "inner_length",
    "length 256 too large": "inner_length",
    "cut short": "inner_length",
    "shorter than its header": "inner_short",
    "one byte": "inner_short",
}
REFUSED = {4: {**_REFUSED, "length of 0": "inner_length", "header length of 4": "inner_length"}, 6: _REFUSED}
"""The reasons for which rows are refused, by version of IP, where packets are not padded."""
