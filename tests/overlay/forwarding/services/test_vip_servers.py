"""Health checks through a virtual address, and servers that fail over one IP version."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from overlay.forwarding.services.balancer import ServerTraffic
from overlay.forwarding.services.server import Takes
from overlay.wire.flow_key import flow_key
from tests.overlay.forwarding.services.conftest import (
    CLIENTS,
    World,
    answer_of,
    error,
    established,
    flags_of,
    fragments_of,
    tcp,
    udp,
)
from tests.packets import ACK, FIN, RST, SYN

both = pytest.mark.parametrize("version", [4, 6])


# Health checks


@both
def test_pinned_flows_go_to_their_server_whatever_its_state(world, version):
    world.servers(world.row(0, takes=Takes.NOTHING), world.row(1, takes=Takes.KEPT), 2)
    client, vip = ip_address(CLIENTS[version].format(1)).packed, world.vips[version]
    for number, port in ((0, 5000), (1, 5001)):
        assert world.balancer.pin(flow_key(6, client, port, vip, 80), 1, number)

    for flags in (SYN, ACK, ACK | FIN):
        assert world.send(tcp(port=5000, flags=flags, version=version)) == 0
        assert world.send(tcp(port=5001, flags=flags, version=version)) == 1
    assert len(world.service().flows) == 0
    assert world.send(error(answer_of(tcp(port=5000, version=version)), version)) == 0

    world.balancer.unpin([flow_key(6, client, 5000, vip, 80)])
    assert world.send(tcp(port=5000, flags=SYN, version=version)) == 2


@both
def test_packets_of_health_checks_are_not_counted_among_those_of_clients(world, version):
    client, vip = ip_address(CLIENTS[version].format(1)).packed, world.vips[version]
    for protocol, port in ((6, 5000), (17, 5001)):
        world.balancer.pin(flow_key(protocol, client, port, vip, 80), 1, 0)
    kind, pinging = 1 if version == 4 else 58, ip_address(CLIENTS[version].format(99)).packed
    world.balancer.pin(flow_key(kind, pinging, 7, vip, 0), 1, 0)
    first, *later = fragments_of(version, 5001)

    sent = [
        *(tcp(port=5000, flags=flags, version=version) for flags in (SYN, ACK, ACK | FIN)),
        udp(port=5001, version=version),
        error(answer_of(tcp(port=5000, version=version)), version),
        error(b"x", version, bytes([8 if version == 4 else 128, 0, 0, 0, 0, 7, 0, 1])),
        first,
        *later,
    ]
    assert {world.send(packet) for packet in sent} == {0}
    assert [world.send(piece) for piece in reversed(fragments_of(version, 5001))][-1] == 0

    assert world.service().totals() == (0, 0, 0)
    assert world.count(0) == ServerTraffic(0, 0, 0, 0, 0, 0)


def test_check_goes_on_when_its_server_goes_down_and_reaches_no_other_when_that_is_gone(world):
    flow = flow_key(6, ip_address(CLIENTS[4].format(1)).packed, 5000, world.vips[4], 80)
    world.balancer.pin(flow, 1, 0)

    world.servers(world.row(0, takes=Takes.NOTHING), 1, 2)
    assert world.send(tcp(port=5000, flags=SYN)) == 0
    world.servers(0, 1, 2)
    assert world.send(tcp(port=5000, flags=SYN)) == 0
    world.servers(1, 2)
    assert world.send(tcp(port=5000, flags=SYN)) is None
    assert world.service().drops == {"service_gone": 1}
    world.balancer.unpin([flow])
    assert world.send(tcp(port=5000, flags=SYN)) in {1, 2}


def test_sorry_server_is_checked_too(world):
    flow = flow_key(6, ip_address(CLIENTS[4].format(1)).packed, 5000, world.vips[4], 80)
    world.servers(0, 1, sorry=world.row(9))

    assert world.balancer.pin(flow, 1, 9)
    assert world.send(tcp(port=5000, flags=SYN)) == 9


@both
def test_pings_can_be_pinned(world, version):
    client, vip = ip_address(CLIENTS[version].format(99)).packed, world.vips[version]
    world.balancer.pin(flow_key(1 if version == 4 else 58, client, 7, vip, 0), 1, 2)
    kind = 8 if version == 4 else 128

    assert world.send(error(b"x", version, bytes([kind, 0, 0, 0, 0, 7, 0, 1]))) == 2
    assert world.send(error(b"x", version, bytes([kind, 0, 0, 0, 0, 8, 0, 1]))) is None
    assert len(world.written) == 1


# Servers that fail over one IP version


def by_ipv4(world, number, takes=Takes.NOTHING):
    return world.row(number, apart=((6, takes),))


@pytest.mark.parametrize("scheduler", ["maglev", "rr", "wlc", "sh"])
def test_new_flows_of_an_ip_version_go_to_servers_that_take_it(scheduler):
    world = World()
    world.serve(scheduler=scheduler)
    world.servers(by_ipv4(world, 0), 1, 2)

    chosen = {
        version: {world.send(tcp(client, flags=SYN, version=version)) for client in range(1, 60)}
        for version in (4, 6)
    }
    assert chosen == {4: {0, 1, 2}, 6: {1, 2}}
    world.servers(0, 1, 2)
    assert {world.send(tcp(client, port=6000, flags=SYN, version=6)) for client in range(1, 60)} == {0, 1, 2}


def test_flows_of_the_ip_version_that_a_server_fails_by_end_and_the_others_stay(world):
    number = established(world, version=6)
    other = next(client for client in range(2, 90) if established(world, client=client) == number)
    udp_number = world.send(udp(version=6))

    world.servers(*(by_ipv4(world, each) if each == number else each for each in range(3)))

    assert world.send(tcp(version=6)) is None
    assert flags_of(world.written[-1]) & RST
    assert world.send(tcp(client=other)) == number
    assert world.send(udp(version=6)) in ({0, 1, 2} - {number})
    assert udp_number is not None
    assert world.send(tcp(flags=SYN, version=6)) in ({0, 1, 2} - {number})
    world.servers(0, 1, 2)
    assert world.send(tcp(client=other)) == number


def test_flows_of_a_server_that_is_to_keep_them_stay(world):
    number = established(world, version=6)
    world.servers(*(by_ipv4(world, each, Takes.KEPT) if each == number else each for each in range(3)))

    assert world.send(tcp(version=6)) == number
    assert number not in {world.send(tcp(client, flags=SYN, version=6)) for client in range(2, 60)}


def test_the_sorry_server_takes_an_ip_version_that_no_server_takes(world):
    world.servers(by_ipv4(world, 0), by_ipv4(world, 1), sorry=world.row(9))

    assert world.send(tcp(flags=SYN)) in {0, 1}
    assert world.send(tcp(flags=SYN, version=6)) == 9
    world.servers(by_ipv4(world, 0), by_ipv4(world, 1))
    assert world.send(tcp(port=6000, flags=SYN, version=6)) is None


def test_place_of_lost_flows_is_given_to_no_other_server(world):
    number = established(world, version=6)
    world.servers(*(by_ipv4(world, each) if each == number else each for each in range(3)))
    for more in range(3, 9):
        world.servers(more)
        world.servers(0, 1, 2)

    assert world.send(tcp(version=6)) is None


def test_a_client_is_scheduled_anew_by_the_ip_version_that_its_server_fails_by():
    world = World()
    world.serve(scheduler="rr", persistence=300)
    world.servers(0, 1)
    kept = {version: world.send(tcp(flags=SYN, version=version)) for version in (4, 6)}

    world.servers(*(by_ipv4(world, each) if each == kept[6] else each for each in range(2)))

    assert world.send(tcp(port=6000, flags=SYN)) == kept[4]
    assert world.send(tcp(port=6000, flags=SYN, version=6)) == 1 - kept[6]
