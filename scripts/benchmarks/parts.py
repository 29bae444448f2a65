"""The cost of single steps of the packet path, outside any network."""

from __future__ import annotations

import struct
import subprocess
import sys
import timeit
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from overlay.forwarding.bulk.reassembly import Reassembly
from overlay.forwarding.bulk.units import Cutter, UnitKey, make_aead, open_unit, read_unit
from overlay.forwarding.offload.flow import HEADER_SIZE, OVERHEAD
from overlay.forwarding.offload.join import Rows
from overlay.forwarding.offload.split import Splitter
from overlay.forwarding.table import RouteTable
from overlay.wire.bulk import CIPHERS, FRAGMENT_HEADER_SIZE
from overlay.wire.messages import KEY_SIZE, TAG_SIZE
from overlay.wire.tcp import ACK
from overlay.wire.virtio import GSO_TCPV4
from scripts.benchmarks import figures, plainly
from scripts.benchmarks.figures import Figures

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

MTU = 1420
SEGMENTS = 45  # of a super-packet, as TCP makes them
HEADERS = 52  # bytes of IPv4 and TCP with timestamps
SEGMENT = MTU - HEADERS  # bytes of payload
TIMESTAMPS = b"\1\1\x08\x0a" + bytes(8)
SIZES = (64, 1420, 8900, 64_000)  # bytes to seal
NONCE = bytes(12)
ROUND = 0.02  # seconds that one measurement takes
PREFIXES = (10, 100_000)
MEMORY = """
import re, pathlib, cryptography.hazmat.primitives.ciphers.aead
{}
print(re.search(r"Pss: *(\\d+)", pathlib.Path("/proc/self/smaps_rollup").read_text())[1])
"""

Step = tuple[str, str, "Callable[[], object]"]
"""One measured step: a column, a name in it, and the call."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this measurement."""
    parser.add_argument("--rounds", type=int, default=9, help="interleaved rounds (default 9)")
    parser.add_argument("--json", type=Path, help="write every measurement to this file")


def run(arguments: argparse.Namespace) -> None:
    """Measure and report, in microseconds for one call."""
    results = Figures("plain Python")
    steps = [*look_ups(), *aeads(), *super_packets(), *units()]
    numbers = [timeit.Timer(call).autorange()[0] for _, _, call in steps]
    for _ in range(arguments.rounds):
        for (column, name, call), number in zip(steps, numbers, strict=True):
            count = max(1, round(number * ROUND / 0.2))  # autorange takes 0.2 s at least
            results.note(column, name, timeit.timeit(call, number=count) / count * 1e6)
    for name, line in (("without numpy", ""), ("with numpy", "import numpy")):
        results.note("memory of an interpreter with cryptography, MB", name, memory_after(line))
    results.show()
    figures.write(arguments.json, vars(arguments), {"results": results.values})


def look_ups() -> list[Step]:
    """Look up a destination in small and large tables."""
    steps: list[Step] = []
    for count in PREFIXES:
        table: RouteTable[str] = RouteTable()
        networks = [(10 << 24 | number << 7).to_bytes(4, "big") for number in range(count)]
        table.stage((network, 25, "peer") for network in networks)
        table.commit()
        address = networks[count // 2][:3] + bytes([networks[count // 2][3] | 1])
        table.find(address)
        column = f"look-up among {count} prefixes, us"
        steps.append((column, "an address seen before", lambda t=table, a=address: t.remembered[a]))  # type: ignore[misc]
        steps.append((column, "another", lambda t=table, a=address: t.find(a)))  # type: ignore[misc]
    return steps


def aeads() -> list[Step]:
    """Seal and open in place."""
    steps: list[Step] = []
    for size in SIZES:
        for kind in (ChaCha20Poly1305, AESGCM):
            aead = kind(bytes(KEY_SIZE))
            plain, sealed = memoryview(bytearray(size)), memoryview(bytearray(size + TAG_SIZE))
            aead.encrypt_into(NONCE, plain, None, sealed)
            steps.append(
                (f"seal {size} bytes, us", kind.__name__, sealer(aead, plain, bytearray(size + TAG_SIZE)))
            )
            steps.append((f"open {size} bytes, us", kind.__name__, opener(aead, sealed, bytearray(size))))
    return steps


def sealer(aead: ChaCha20Poly1305 | AESGCM, plain: memoryview, out: bytearray) -> Callable[[], object]:
    return lambda: aead.encrypt_into(NONCE, plain, None, out)


def opener(aead: ChaCha20Poly1305 | AESGCM, sealed: memoryview, out: bytearray) -> Callable[[], object]:
    return lambda: aead.decrypt_into(NONCE, sealed, None, out)


def super_packet() -> memoryview:
    """Return a super-packet of TCP over IPv4 as the kernel hands it over, which leaves the checksums to us."""
    size = HEADERS + SEGMENTS * SEGMENT
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, size, 1, 0x4000, 64, 6, 0, b"\x0a\xf4\1\2", b"\x0a\xf4\2\2")
    tcp = struct.pack("!HHIIBBHHH", 5201, 40_000, 1, 1, (HEADERS - plainly.L4) // 4 << 4, ACK, 512, 0, 0)
    payload = bytes(range(256)) * (size // 256 + 1)
    return memoryview((ip + tcp + TIMESTAMPS + payload)[:size])


def super_packets() -> list[Step]:
    """Cut a super-packet into packets with checksums, and check that they can be joined again: numpy and plain
    Python.
    """
    packet = super_packet()
    splitter = Splitter(MTU)
    train = splitter.split(packet, GSO_TCPV4, SEGMENT, plainly.L4)
    assert (train.count, train.stride) == (SEGMENTS, train.size)
    out = bytearray(SEGMENTS * train.stride)
    assert plainly.split(packet, HEADERS, SEGMENT, train.stride, out) == SEGMENTS
    length = HEADERS + SEGMENT
    for row, made in enumerate(train.plain):
        at = row * train.stride + HEADER_SIZE
        assert out[at : at + length] == made[:length], "the two ways differ"
    array = np.frombuffer(out, dtype=np.uint8)
    rows = Rows(array, memoryview(out), train.stride, SEGMENTS, train.stride)
    assert len(rows.runs(False) or []) == 1
    assert plainly.is_one_run(memoryview(out), train.stride, SEGMENTS, train.stride)
    cut, joined = f"cut {SEGMENTS} segments, us", f"check {SEGMENTS} segments to join, us"
    return [
        (cut, "plain Python", lambda: plainly.split(packet, HEADERS, SEGMENT, train.stride, out)),
        (cut, "numpy", lambda: splitter.split(packet, GSO_TCPV4, SEGMENT, plainly.L4)),
        (joined, "plain Python", lambda: plainly.is_one_run(rows.view, train.stride, SEGMENTS, train.stride)),
        (joined, "numpy", lambda: rows.runs(False)),
    ]


def units() -> list[Step]:
    """Seal and cut one unit; put it together from its datagrams and open it."""
    packet, steps = super_packet(), list[Step]()
    datagram = MTU + OVERHEAD
    for cipher, name in CIPHERS.items():
        key, cutter = UnitKey(cipher, bytes(KEY_SIZE), 1), Cutter()
        cut = unit_cutter(cutter, key, packet, datagram)
        key.counter = 0
        fragments = b"".join(cut())
        steps.append((f"a unit of {SEGMENTS} segments, us", f"cut, {name.decode()}", cut))
        steps.append(
            (
                f"a unit of {SEGMENTS} segments, us",
                f"reassembled, {name.decode()}",
                unit_taker(cipher, fragments, datagram),
            )
        )
    return steps


def unit_cutter(
    cutter: Cutter, key: UnitKey, packet: memoryview, datagram: int
) -> Callable[[], list[memoryview]]:
    header, payload = bytes(packet[:HEADERS]), packet[HEADERS:]
    return lambda: cutter.cut(key, GSO_TCPV4, SEGMENT, header, payload, datagram)


def unit_taker(cipher: int, fragments: bytes, datagram: int) -> Callable[[], object]:
    """Return a function that receives the datagrams of a unit with counter 0, any number of times."""
    reassembly: Reassembly[None] = Reassembly(lambda _: None)
    aead = make_aead(cipher, bytes(KEY_SIZE))
    count, last = -(-len(fragments) // datagram), len(fragments) % datagram or datagram
    room = np.frombuffer(fragments.ljust(count * datagram, b"\0"), dtype=np.uint8)
    pieces = room.reshape(count, datagram)[:, FRAGMENT_HEADER_SIZE:]
    place = (1, 0, ("192.0.2.1", 51820))

    def take() -> object:
        partial = reassembly.place(None, place, count, cipher, 0.0, is_at_endpoint=True)
        assert reassembly.put(partial, 0, pieces, last - FRAGMENT_HEADER_SIZE)
        sealed, _ = reassembly.take(place)
        return read_unit(open_unit(aead.decrypt_into, 0, sealed), MTU)

    return take


def memory_after(line: str) -> float:
    """Return the proportional set size of an interpreter that has run *line*."""
    done = subprocess.run(
        [sys.executable, "-c", MEMORY.format(line)], check=True, capture_output=True, text=True
    )
    return int(done.stdout) / 1024
