"""Trains of segments, split and joined."""

from __future__ import annotations

import struct

import numpy as np
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from hypothesis import strategies as st

from overlay.forwarding.offload.flow import (
    padded,
)
from overlay.forwarding.offload.join import Rows
from overlay.forwarding.offload.split import Splitter
from overlay.wire.messages import TRANSPORT_HEADER, TYPE_TRANSPORT
from tests import packets
from tests.packets import ACK, PSH

AEAD = ChaCha20Poly1305(bytes(32))
INDEX = 0x12345678


def payload_of(size, start=0):
    return bytes((start + at * 7) % 256 for at in range(size))


def sealed_train(train, counter=5):
    """Seal *train* as outbound does and return its datagrams, cut as the kernel cuts each send."""
    train.number(counter)
    for nonce, plain, sealed in zip(train.nonces, train.plain, train.sealed, strict=True):
        AEAD.encrypt_into(bytes(nonce), plain, None, sealed)
    train.address(INDEX)
    datagrams = []
    for part in train.parts():
        sent = b"".join(part)
        assert len(sent) <= 65507
        cut = [sent[at : at + train.size] for at in range(0, len(sent), train.size)]
        assert len(cut) <= 64
        datagrams += cut
    return datagrams


def opened(datagrams, counter=5):
    plaintexts = []
    for number, datagram in enumerate(datagrams):
        assert TRANSPORT_HEADER.unpack_from(datagram) == (TYPE_TRANSPORT, INDEX, counter + number)
        sealed = datagram[TRANSPORT_HEADER.size :]
        plaintexts.append(AEAD.decrypt(struct.pack("<4xQ", counter + number), sealed, None))
    return plaintexts


def with_padding(packet, mtu):
    return packet + bytes(padded(len(packet), mtu) - len(packet))


def check_split(packet, segment, mtu, splitter=None):
    """Compare the train of a super-packet with the kernel's segmentation, byte for byte after opening."""
    packet, virtio = packets.as_super_packet(packet, segment)
    _, kind, _, _, start, _ = struct.unpack("<BBHHHH", virtio)
    train = (splitter or Splitter(mtu)).split(memoryview(packet), kind, segment, start)

    plaintexts = opened(sealed_train(train))

    expected = packets.kernel_segments(packet, virtio)
    assert plaintexts == [with_padding(each, mtu) for each in expected]


def payload_with_a_zero_checksum(size=100, **fields):
    """Return a payload whose UDP checksum computes to zero, which is written as ones."""
    packet = packets.udp(bytes(2).ljust(size, b"."), **fields)
    start = packets.l4_start(packet) + 6
    payload = packet[start : start + 2].ljust(size, b".")  # the sum is whole with what was missing from it
    packet = packets.udp(payload, **fields)
    assert packet[start : start + 2] == b"\xff\xff"
    return payload


def rows_of(inner, filler=0xEE, slack=0):
    """Lay *inner* out as the opened datagrams of one receive: all as long as the longest except for the last."""
    longest = max(map(len, inner)) + slack
    stride = 16 + longest + longest % 2 + 16
    last = 16 + len(inner[-1]) + 16
    buffer = bytearray([filler]) * (stride * (len(inner) + 1))
    for number, packet in enumerate(inner):
        at = number * stride + 16
        room = stride - 32 if number < len(inner) - 1 else last - 32
        buffer[at : at + room] = packet + bytes(room - len(packet))
    return Rows(np.frombuffer(buffer, dtype=np.uint8), memoryview(buffer), stride, len(inner), last)


def written(rows, inner, *, udp=True):
    """Return the packets that come out of the tun, and how many were in each write."""
    runs = rows.runs(udp)
    if runs is None:
        return None
    assert [row for run in runs for row in range(run.first, run.first + run.count)] == list(range(len(inner)))
    out, counts = [], []
    for run in runs:
        counts.append(run.count)
        if run.count == 1:
            out.append(bytes(rows.plaintext(run.first)[: len(inner[run.first])]))
            continue
        assert all(packets.parsed(inner[row]) for row in range(run.first, run.first + run.count))
        data = b"".join(rows.super_packet(run))
        cut = packets.kernel_segments(data[10:], data[:10])
        assert len(cut) == run.count
        out += cut
    return out, counts


def check_join(inner, **how):
    """Join *inner* and compare with what went in and with the slow twin; return the sizes of the writes."""
    result = written(rows_of(inner, **how), inner)
    if result is None:
        return None
    out, counts = result
    assert out == inner
    assert counts == [len(group) for group in packets.join_slowly(inner)]
    return counts


def flow(count=4, size=100, last=None, **fields):
    """Return the segments of one TCP flow, as one sender's kernel segments them."""
    last = last or size
    sequence, identifier = fields.pop("sequence", 1000), fields.pop("identifier", 50)
    final_flags = fields.pop("final_flags", fields.get("flags", ACK))
    made = []
    for number in range(count):
        is_last = number == count - 1
        ip = {"identifier": identifier + number} if fields.get("version", 4) == 4 else {}
        made.append(
            packets.tcp(
                payload_of(last if is_last else size, number),
                sequence=sequence + number * size,
                **{**fields, **ip, "flags": final_flags if is_last else fields.get("flags", ACK)},
            )
        )
    return made


def udp_flow(count=4, size=100, last=None, **fields):
    made = []
    for number in range(count):
        ip = {"identifier": 50 + number} if fields.get("version", 4) == 4 else {}
        made.append(
            packets.udp(payload_of(last if last and number == count - 1 else size, number), **fields, **ip)
        )
    return made


@st.composite
def sequences(draw):
    """Packets as a tunnel carries them: pieces of flows with occasional faults."""
    version = draw(st.sampled_from([4, 4, 6]))
    inner = []
    sequence = draw(st.integers(0, 2**32 - 1) | st.just(2**32 - 300))
    identifier = draw(st.integers(0, 65535) | st.just(65533))
    size = draw(st.integers(1, 300))
    for _ in range(draw(st.integers(2, 12))):
        kind = draw(
            st.sampled_from(
                ["next"] * 8 + ["gap", "repeat", "flags", "short", "long", "other", "udp", "field"]
            )
        )
        fields = {"sequence": sequence, "version": version}
        flags = draw(st.sampled_from([ACK] * 6 + [ACK | PSH]))
        length = size
        if version == 4:
            fields["identifier"] = identifier
        if kind == "gap":
            fields["sequence"] = sequence = sequence + draw(st.integers(1, 3000))
        elif kind == "repeat" and inner:
            inner.append(inner[-1])
            continue
        elif kind == "flags":
            flags = draw(st.integers(0, 255))
        elif kind in {"short", "long"}:
            length = draw(st.integers(0, size) if kind == "short" else st.integers(size, size + 100))
        elif kind == "other":
            fields["ports"] = (3000, draw(st.integers(1, 3)))
        elif kind == "field":
            name = draw(st.sampled_from(["tos", "ttl", "window", "acknowledgement", "urgent", "reserved"]))
            fields[name] = draw(st.integers(0, 15))
        if kind == "udp":
            ip = {key: value for key, value in fields.items() if key != "sequence"}
            packet = packets.udp(payload_of(length), **ip)
        else:
            packet = packets.tcp(payload_of(length, draw(st.integers(0, 3))), flags=flags, **fields)
            sequence += length
        identifier += 1
        if draw(st.integers(0, 15)) == 0:
            broken = bytearray(packet)
            broken[draw(st.integers(1, len(packet) - 1))] ^= draw(st.integers(1, 255))
            packet = bytes(broken)
        inner.append(packet)
    return inner
