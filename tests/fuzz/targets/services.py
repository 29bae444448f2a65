"""Packets to a virtual address: first ones, fragments, ICMP errors about its flows."""

from __future__ import annotations

from ipaddress import ip_address

from overlay.forwarding.peer import LivePeer
from overlay.forwarding.services.balancer import Balancer
from overlay.forwarding.services.server import ServerSettings
from overlay.forwarding.services.settings import ServiceSettings
from tests import packets
from tests.fuzz.target import join, split

VIPS = {4: "192.0.2.100", 6: "2001:db8::100"}
CLIENTS = {4: "198.51.100.7", 6: "2001:db8:1::7"}


def to_vip(data):
    written, again = [], []
    balancer = Balancer(lambda parts: written.append(b"".join(parts)), again.extend, list)
    vips = {version: ip_address(text).packed for version, text in VIPS.items()}
    ports = ((80, 80), (8000, 8099))
    balancer.set_service(1, "web", ServiceSettings(scheduler="wlc"), vips.values(), (6, 17, 132), ports)
    balancer.set_servers(
        1, [ServerSettings(number, f"web{number}:0", LivePeer(number + 1)) for number in range(3)]
    )
    for now, packet in enumerate(split(data, 8)):
        version = 6 if packet[:1] and packet[0] >> 4 == 6 else 4
        peer = balancer.vip(vips[version]).choose(memoryview(bytearray(packet)), float(now))
        assert peer is None or peer.number in {1, 2, 3}
    assert len(balancer.service(1).flows) <= 8
    assert len(written) + len(again) <= 8


def seeds():
    for version in (4, 6):
        ends = {"source": CLIENTS[version], "destination": VIPS[version], "version": version}
        back = {"source": VIPS[version], "destination": CLIENTS[version], "version": version}
        flow = [packets.tcp(ports=(5000, 80), flags=flags, **ends) for flags in (2, 16, 17, 4)]
        build, protocol = (packets.ipv4, 1) if version == 4 else (packets.ipv6, 58)
        quoted = packets.tcp(ports=(80, 5000), **back)[: packets.l4_start(flow[0]) + 8]
        head = bytes([3, 4, 0, 0, 0, 0, 5, 20] if version == 4 else [2, 0, 0, 0, 0, 0, 5, 20])
        about = build(head + quoted, source=CLIENTS[version], destination=VIPS[version], protocol=protocol)
        yield join([*flow, about])
        yield join(
            [packets.udp(b"question", ports=(5000, 8001), **ends), packets.udp(ports=(5000, 81), **ends)]
        )
    part = {"source": CLIENTS[4], "destination": VIPS[4], "protocol": packets.UDP}
    later = packets.ipv4(bytes(24), fragment=0x0002, **part)
    yield join([later, packets.ipv4(b"\x13\x88\0\x50\0\x28\0\0" + bytes(8), fragment=0x2000, **part), later])
