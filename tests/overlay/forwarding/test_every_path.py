"""Hostile and odd packets on every path: one among others is treated as it is alone."""

from __future__ import annotations

from collections import Counter

import pytest

from overlay.forwarding.underlay.batching import PROBE
from peers.mac import derived_mac
from tests import packets
from tests.hostile import REFUSED, rows
from tests.network import Flight
from tests.sim import CLEAR_PORT, VNI, World

SIZE = 100  # bytes of UDP payload: with the headers a multiple of 16 for neither version
COMPANY = (2, 5, 11)  # packets in one receive: a pair, a short train, and enough to be read as a table


class Path:
    """Nodes a and b, and a way for payloads that a might have sent to arrive at b, all those of one call in one
    receive.
    """

    pads = True  # as WireGuard does, if a path pads at all

    def __init__(self):
        self.world = World()
        self.a, self.b = a, b = self.connect()
        b.route([(f"{a.inner(4)}/32", 1), (f"{a.inner(6)}/128", 1)], a.subnets)  # each bit of a source counts
        self.serial = 0

    def arrive(self, payloads):
        """Return what b's kernel got of these packets, in order, and the drops, by reason."""
        before = self.b.drops
        self.b.received.clear()
        self.put(payloads)
        self.world.run(0.1)
        return list(self.b.received), self.b.drops - before

    def genuine(self, version, flows=1):
        """Return a packet of one of *flows* flows: packets of one flow may be joined, neighbours in different flows may
        not.
        """
        self.serial += 1
        body = f"{self.serial:08}".encode().ljust(SIZE, b".")
        ends = {"source": self.a.inner(version), "destination": self.b.inner(version)}
        return packets.udp(body, version=version, ports=(1000 + self.serial % flows, 2000), **ends)


class Messages(Path):
    """WireGuard messages, which the receiving kernel merges."""

    def connect(self):
        a, b = self.world.pair()
        a.send(b)
        b.send(a)
        self.world.run(1)
        a.send(b, 3 * PROBE)  # batches are taken
        self.world.run(1)
        return a, b

    def put(self, payloads):
        peer = self.a.peer()
        for payload in payloads:
            padding = bytes(-len(payload) % 16) if self.pads else b""
            self.a.core.outbound.send_payload(peer, peer.keypairs.current, payload + padding)


class Unmerged(Messages):
    """WireGuard messages that the kernel delivers one by one."""

    def put(self, payloads):
        self.b.has_gro = False
        super().put(payloads)


class Datagrams(Path):
    """The bare packet in UDP."""

    encapsulation = "udp"

    def connect(self):
        return self.world.clear_pair(encapsulation=self.encapsulation)

    def put(self, payloads):
        for payload in payloads:
            source, to = (self.a.addresses[0], 40000), (self.b.addresses[0], CLEAR_PORT)
            self.world.network.send(Flight(source, to, self.framed(payload)))

    def framed(self, payload):
        return payload


class Vxlan(Datagrams):
    """Ethernet frames in VXLAN, for a tun."""

    encapsulation = "vxlan"

    def framed(self, payload):
        kind = b"\x86\xdd" if payload[:1] and payload[0] >> 4 == 6 else b"\x08\0"
        ethernet = derived_mac("b") + derived_mac("a") + kind
        return b"\x08\0\0\0" + VNI.to_bytes(3, "big") + b"\0" + ethernet + payload


class Raw(Path):
    """Packets behind an outer IP header, many in one call."""

    name, protocols, before = "ipip", {4: 4, 6: 41}, {4: b"", 6: b""}

    def connect(self):
        return self.world.raw_pair(self.name)

    def put(self, payloads):
        for payload in payloads:
            version = 6 if payload[:1] and payload[0] >> 4 == 6 else 4
            source, to = (self.a.addresses[0], 0), (self.b.addresses[0], 0)
            whole = self.before[version] + payload
            self.world.network.send(Flight(source, to, whole, protocol=self.protocols[version]))


class Gre(Raw):
    """The same behind a GRE header."""

    name, protocols, before = "gre", {4: 47, 6: 47}, {4: b"\0\0\x08\0", 6: b"\0\0\x86\xdd"}


PATHS = [Messages, Unmerged, Datagrams, Vxlan, Raw, Gre]


@pytest.fixture(scope="module", params=PATHS, ids=lambda path: path.__name__)
def path(request):
    return request.param()


@pytest.mark.slow
@pytest.mark.parametrize("flows", [1, 3])
@pytest.mark.parametrize("version", [4, 6])
def test_a_hostile_packet_in_company_fares_as_alone_and_harms_nobody(path, version, flows):
    for name, make in rows(version).items():
        for count in COMPANY:
            for place in (0, count // 2, count - 1):
                batch = [path.genuine(version, flows) for _ in range(count)]
                before, after = batch[:place], batch[place + 1 :]
                batch[place] = make(batch[place])
                delivered, dropped = path.arrive([batch[place]])
                assert len(delivered) + dropped.total() == 1

                together = path.arrive(batch)

                assert together == ([*before, *delivered, *after], dropped), (name, count, place)


@pytest.mark.parametrize("version", [4, 6])
def test_what_is_refused_is_refused_for_its_reason(path, version, monkeypatch):
    monkeypatch.setattr(path, "pads", False)
    for name, reason in REFUSED[version].items():
        got, why = path.arrive([rows(version)[name](path.genuine(version))])

        assert (got, why) == ([], Counter({reason: 1})), name


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("count", [1, *COMPANY])
def test_one_wrong_byte_of_the_source_refuses_all_that_have_it_and_no_other(path, version, count):
    first, size = (12, 4) if version == 4 else (8, 16)
    for at in range(first, first + size):
        batch = [path.genuine(version) for _ in range(count)]
        forged = [packets.with_l4_checksum(packets.with_ip_checksum(_flip(packet, at))) for packet in batch]

        got, why = path.arrive(forged)

        assert (got, why) == ([], Counter(source=count)), at


def _flip(packet, at):
    return packet[:at] + bytes([packet[at] ^ 0x40]) + packet[at + 1 :]
