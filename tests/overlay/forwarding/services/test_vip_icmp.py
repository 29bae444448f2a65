"""Fragments and ICMP at a virtual address."""

from __future__ import annotations

import pytest

from tests import packets
from tests.overlay.forwarding.services.conftest import (
    CLIENTS,
    VIPS,
    World,
    answer_of,
    error,
    established,
    fragments_of,
    tcp,
    udp,
)
from tests.packets import SYN

both = pytest.mark.parametrize("version", [4, 6])


# Fragments


@both
def test_fragments_go_where_the_first_one_goes(world, version):
    for port in range(1000, 1020):
        number = world.send(udp(port=port, version=version))
        assert [world.send(piece) for piece in fragments_of(version, port)] == [number] * 3
    assert not world.balancer.drops


@both
def test_fragments_that_come_before_the_first_are_sent_after_it(world, version):
    first, *later = fragments_of(version, 1000)

    assert [world.send(piece) for piece in later] == [None, None]
    number = world.send(first)

    assert number is not None
    assert world.resent == later
    assert [world.send(piece) for piece in world.resent] == [number] * 2


def test_fragments_of_a_server_that_is_gone_are_dropped(world):
    first, *later = fragments_of(4, 1000)
    number = world.send(first)
    world.servers(*({0, 1, 2} - {number}))

    assert world.send(later[0]) is None
    assert world.service().drops == {"service_gone": 1}


# ICMP


@both
@pytest.mark.parametrize("make", [tcp, udp])
def test_icmp_errors_about_a_flow_go_to_its_server_though_its_slot_moved(world, version, make):
    flows = {
        port: world.send(make(port=port, version=version, **({"flags": SYN} if make is tcp else {})))
        for port in range(1000, 1050)
    }
    world.servers(0, 1, 2, 3, 4)

    found = {port: world.send(error(answer_of(make(port=port, version=version)), version)) for port in flows}

    assert found == flows


@both
def test_icmp_errors_about_unknown_flows_go_where_these_would(world, version):
    expected = World()
    expected.serve()
    expected.servers(0, 1, 2)
    flows = {port: expected.send(tcp(port=port, version=version)) for port in range(1000, 1050)}

    assert {
        port: world.send(error(answer_of(tcp(port=port, version=version)), version)) for port in flows
    } == flows
    assert len(world.service().flows) == 0


@both
def test_icmp_errors_about_nothing_of_ours_are_dropped(world, version):
    world.serve(scheduler="rr")
    for quoted in (answer_of(tcp(version=version)), answer_of(tcp(to=81, version=version)), b"", bytes(60)):
        assert world.send(error(quoted, version)) is None

    assert world.balancer.drops == {"service_icmp": 4}
    assert not world.written


@both
def test_the_virtual_address_answers_pings(world, version):
    head = bytes([8 if version == 4 else 128, 0, 0, 0, 0, 7, 0, 1])

    assert world.send(error(b"payload", version, head)) is None

    (reply,) = world.written
    assert reply[packets.l4_start(reply)] == (0 if version == 4 else 129)
    assert reply.endswith(b"payload")
    assert not world.balancer.drops


def test_other_protocols_are_dropped(world):
    assert world.send(packets.ipv4(bytes(20), protocol=47, destination=VIPS[4])) is None
    assert world.send(packets.ipv4(bytes(20), protocol=58, destination=VIPS[4])) is None

    assert world.balancer.drops == {"service_protocol": 2}


def test_answers_are_limited(world):
    for number in range(6000):
        world.send(tcp(to=81, port=number + 1, flags=SYN))

    assert len(world.written) == 5000
    world.send(tcp(to=81, flags=SYN), now=1.0)
    assert len(world.written) == 5001


@both
def test_icmp_errors_about_a_flow_of_a_server_that_is_gone_are_dropped(world, version):
    number = established(world, version=version)
    world.servers(*({0, 1, 2} - {number}))

    assert world.send(error(answer_of(tcp(version=version)), version)) is None
    assert world.balancer.drops == {"service_icmp": 1}


@both
@pytest.mark.parametrize("protocol", [1, 47, 58])
def test_icmp_errors_about_what_no_service_is_for_are_dropped(world, version, protocol):
    build = packets.ipv4 if version == 4 else packets.ipv6
    ends = {"source": VIPS[version], "destination": CLIENTS[version].format(1)}

    assert world.send(error(build(bytes(20), protocol=protocol, **ends), version)) is None
    assert world.balancer.drops == {"service_icmp": 1}


@both
def test_icmp_of_the_other_version_is_dropped(world, version):
    build, protocol = (packets.ipv4, 58) if version == 4 else (packets.ipv6, 1)
    for kind in (3, 8, 128):
        packet = build(bytes([kind]) + bytes(30), protocol=protocol, destination=VIPS[version])
        assert world.send(packet) is None

    assert world.balancer.drops == {"service_protocol": 3}
    assert not world.written


@both
def test_fragments_of_pings_are_not_answered(world, version):
    message = bytes([8 if version == 4 else 128, 0, 0, 0, 0, 7, 0, 1]) + bytes(16)
    if version == 4:
        fragment = packets.ipv4(message, protocol=1, fragment=0x2000, destination=VIPS[4])
    else:
        fragment = packets.ipv6(bytes([58, 0, 0, 1, 0, 0, 0, 9]) + message, protocol=44, destination=VIPS[6])

    assert [world.send(fragment) for _ in range(2)] == [None, None]
    assert world.balancer.drops == {"service_icmp": 2}
    assert not world.written
