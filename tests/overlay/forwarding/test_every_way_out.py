"""Odd packets out of the tun, on every path: one that is read among others is treated as it is alone."""

from __future__ import annotations

from collections import Counter

import pytest

from overlay.forwarding.underlay.batching import PROBE
from overlay.wire.bulk import CHACHA20_POLY1305
from tests import hostile, packets
from tests.sim import PORT, World

SIZE = 100  # bytes of UDP payload
COMPANY = (2, 9)  # packets in one batch: read one by one, and taken as a table
NARROW = 1280  # path MTU to c, in bytes

CLEAR = ("udp", "vxlan")
RAW = ("ipip", "gre")


class Way:
    """Node a, whose peers are b, and c behind a narrow path; both have the same encapsulation."""

    def __init__(self, name):
        self.world = World(ciphers=(CHACHA20_POLY1305,) if name == "units" else ())
        self.a, self.b, self.c = (self.world.node(each) for each in "abc")
        for other in (self.b, self.c):
            for one, two in ((self.a, other), (other, self.a)):
                if name in CLEAR:
                    one.know_in_the_clear(two, encapsulation=name)
                elif name in RAW:
                    one.know_raw(two, name)
                else:
                    one.know(two)
        for other in (self.b, self.c):
            self.a.send(other)
            self.world.run(1)
            self.a.send(other, 3 * PROBE)  # batches are taken
            self.world.run(1)
        self.a.route([("192.0.2.2/32", 1), ("2001:db8::2/128", 1)])  # where b is sent to
        self.a.peer(2).path.mtu = NARROW
        self.serial = 0

    def send(self, made):
        """Return the outcome of these packets, read in one batch: received packets, drops, and informed senders."""
        nodes = (self.b, self.c)
        for node in (self.a, *nodes):
            node.received.clear()
        before = self.a.drops
        self.a.tun.outgoing += [packets.PLAIN + packet for packet in made]
        self.world.run(0.1)
        told = Counter(_without_checksum(each) for each in self.a.received)
        return [list(node.received) for node in nodes], self.a.drops - before, told

    def packet(self, version, other, **ip):
        self.serial += 1
        body = f"{self.serial:08}".encode().ljust(SIZE, b".")
        return packets.udp(
            body,
            version=version,
            **{"source": self.a.inner(version), "destination": other.inner(version), **ip},
        )


def _without_checksum(error):
    """Return the type, code and MTU of an ICMP error."""
    at = packets.l4_start(error)
    return error[0] >> 4, error[at : at + 2], error[at + 4 : at + 8]


def _by_flow(made):
    """Return packets in order within each pair of addresses, because flows may leave from ports of their own."""
    return sorted(made, key=lambda packet: packet[12:20] if packet[0] >> 4 == 4 else packet[8:40])


ENDPOINT = {4: "192.0.2.2", 6: "2001:db8::2"}
UNKNOWN = {4: "203.0.113.1", 6: "2001:db8:ffff::1"}
ROWS = {
    "to b": lambda way, version: way.packet(version, way.b),
    "to c": lambda way, version: way.packet(version, way.c),
    "to nobody": lambda way, version: way.packet(version, way.b, destination=UNKNOWN[version]),
    "to ourselves": lambda way, version: way.packet(version, way.a),
    "to the endpoint": lambda way, version: way.packet(version, way.b, destination=ENDPOINT[version]),
    "our own datagram to the endpoint": lambda way, version: packets.udp(
        bytes(SIZE), version=version, ports=(PORT, PORT),
        source=way.a.addresses[version == 6], destination=ENDPOINT[version],
    ),
    "without checksum": lambda way, version: way.packet(version, way.b)[:-2] + b"xx",
    "marked": lambda way, version: way.packet(version, way.b, tos=3),
    "another class": lambda way, version: way.packet(version, way.b, tos=0xB8),
    "a SYN": lambda way, version: packets.tcp(
        bytes(SIZE), version=version, flags=packets.SYN, tcp_options=bytes([2, 4, 0xFF, 0xFF]),
        source=way.a.inner(version), destination=way.b.inner(version),
    ),
    "a SYN to c": lambda way, version: packets.tcp(
        bytes(SIZE), version=version, flags=packets.SYN, tcp_options=bytes([2, 4, 0xFF, 0xFF]),
        source=way.a.inner(version), destination=way.c.inner(version),
    ),
}  # fmt: skip
ODD = {
    name: (lambda way, version, name=name: hostile.rows(version)[name](way.packet(version, way.b)))
    for name in ("version 5", "version 0", "all zeros", "one byte", "shorter than its header", "header alone")
}


@pytest.fixture(scope="module", params=["messages", "units", *CLEAR, *RAW])
def way(request):
    return Way(request.param)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*ROWS, *ODD])
@pytest.mark.parametrize("version", [4, 6])
def test_an_odd_packet_in_company_fares_as_alone(way, version, name):
    make = {**ROWS, **ODD}[name]
    for count in COMPANY:
        for place in (0, count - 1):
            batch = [way.packet(version, way.b) for _ in range(count)]
            batch[place] = make(way, version)

            assert_fares_as_alone(way, batch, (count, place))


@pytest.mark.parametrize("name", [*ROWS, *ODD])
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("count", COMPANY)
def test_odd_packets_alike_fare_as_each_alone(way, version, name, count):
    make = {**ROWS, **ODD}[name]
    assert_fares_as_alone(way, [make(way, version) for _ in range(count)], count)


@pytest.mark.parametrize("fragment", [packets.DONT_FRAGMENT, 0])
@pytest.mark.parametrize("count", [1, *COMPANY])
@pytest.mark.parametrize("size", [NARROW - 28, NARROW - 27, NARROW])
def test_packets_over_the_path_s_mtu_are_cut_or_refused_one_and_all(way, size, count, fragment):
    made = [
        packets.udp(
            bytes(size), source=way.a.inner(), destination=way.c.inner(), fragment=fragment, identifier=n
        )
        for n in range(count)
    ]

    (_, got), dropped, told = way.send(made)

    if size + 28 <= NARROW:
        assert (got, dropped, told.total()) == (made, {}, 0)
    elif fragment:
        assert (got, dropped) == ([], {"path_mtu": count})
        assert told.total() >= 1
    else:
        assert len(got) == 2 * count
        assert all(len(each) <= NARROW for each in got)
        assert (dropped, told.total()) == ({}, 0)


def assert_fares_as_alone(way, batch, where):
    alone = [way.send([packet]) for packet in batch]
    together, dropped, told = way.send(batch)

    for number, got in enumerate(together):
        assert _by_flow(got) == _by_flow(packet for each, _, _ in alone for packet in each[number]), where
    assert dropped == sum((why for _, why, _ in alone), Counter()), where
    assert set(told) <= set().union(*(each for _, _, each in alone)), where
    assert bool(told) or not any(each for _, _, each in alone), where
