from __future__ import annotations

import struct
from collections import Counter
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.forwarding.services.server import Takes
from overlay.services.states import State
from tests import packets
from tests.hypothesis_profiles import examples
from tests.overlay.forwarding.services.conftest import (
    CLIENTS,
    VIPS,
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


def states(world):
    return Counter(row.state for row in world.flows())


@both
def test_all_packets_of_a_connection_go_to_one_server(world, version):
    for client in range(1, 30):
        number = world.send(tcp(client, flags=SYN, version=version))
        more = [ACK, ACK, ACK | FIN, ACK]
        assert {world.send(tcp(client, flags=flags, version=version)) for flags in more} == {number}
    assert not world.written


@both
def test_packets_of_known_flows_take_the_short_way_however_short_they_are(world, version, monkeypatch):
    number, datagrams = (
        established(world, version=version),
        [world.send(udp(version=version)) for _ in range(2)],
    )
    vip = world.balancer.vip(world.vips[version])
    monkeypatch.setattr(vip, "_other", None)

    assert world.send(tcp(version=version)) == number
    assert world.send(tcp(version=version, tcp_options=bytes(12))) == number
    assert world.send(tcp(version=version, flags=FIN | ACK)) == number
    assert world.send(udp(version=version, payload=b"6bytes")) == datagrams[0]


@both
def test_flows_are_spread_over_all_servers(world, version):
    found = Counter(world.send(udp(port=port, version=version)) for port in range(1000, 1300))

    assert set(found) == {0, 1, 2}
    assert min(found.values()) > 50


@both
def test_packets_in_midstream_find_their_server_after_a_restart_and_at_another_director(world, version):
    before = {port: established(world, port=port, version=version) for port in range(1000, 1100)}

    other = World()
    other.serve()
    other.servers(2, 1, 0)

    assert {port: other.send(tcp(port=port, version=version)) for port in before} == before


def test_flows_stay_where_they_are_when_their_slots_move(world):
    before = {port: established(world, port=port) for port in range(1000, 1200)}
    half_open = {port: world.send(tcp(port=port, flags=SYN)) for port in range(2000, 2100)}

    world.servers(0, 1, 2, 3, 4)

    assert {port: world.send(tcp(port=port)) for port in before} == before
    assert {port: world.send(tcp(port=port)) for port in half_open} == half_open
    assert {world.send(tcp(port=port, flags=SYN)) for port in range(3000, 3100)} == {0, 1, 2, 3, 4}


def test_a_drained_server_keeps_its_flows_and_gets_no_new_ones(world):
    before = {port: established(world, port=port) for port in range(1000, 1100)}

    world.servers(world.row(0, takes=Takes.KEPT), world.row(1, weight=0), 2)

    assert {port: world.send(tcp(port=port)) for port in before} == before
    assert {world.send(tcp(port=port, flags=SYN)) for port in range(2000, 2100)} == {2}


@both
@pytest.mark.parametrize("way", ["removed", "down"])
def test_flows_of_a_server_that_is_gone_are_reset_at_their_next_packet(world, version, way):
    flows = {port: established(world, port=port, version=version) for port in range(1000, 1100)}
    gone = [] if way == "removed" else [world.row(0, takes=Takes.NOTHING)]

    world.servers(*gone, 1, 2)
    after = {port: world.send(tcp(port=port, version=version)) for port in flows}

    lost = [port for port, number in flows.items() if number == 0]
    assert after == {port: None if port in lost else number for port, number in flows.items()}
    assert len(world.written) == len(lost) == world.service().drops["service_gone"]
    assert all(flags_of(packet) == RST for packet in world.written)
    assert all(world.send(tcp(port=port, flags=SYN, version=version)) in {1, 2} for port in lost)


def test_udp_of_a_server_that_is_gone_goes_to_another_at_once(world):
    flows = {port: world.send(udp(port=port)) for port in range(1000, 1100)}

    world.servers(1, 2)

    for port, number in flows.items():
        assert world.send(udp(port=port)) in ({1, 2} if number == 0 else {number})
    assert not world.written


def test_a_server_that_comes_back_has_none_of_the_flows_that_it_lost(world):
    flows = {port: established(world, port=port) for port in range(1000, 1100)}
    world.servers(world.row(0, takes=Takes.NOTHING), 1, 2)
    world.servers(0, 1, 2)

    after = {port: world.send(tcp(port=port)) for port in flows}

    assert {after[port] for port, number in flows.items() if number == 0} == {None}


def test_a_syn_of_a_closed_connection_goes_to_the_old_server_unless_that_is_drained(world):
    number = established(world)
    world.send(tcp(flags=FIN | ACK))
    connections = world.count(number).connections

    assert world.send(tcp(flags=SYN)) == number
    assert world.count(number).connections == connections + 1
    world.send(tcp(flags=ACK))
    world.send(tcp(flags=FIN | ACK))
    world.servers(*(world.row(each, takes=Takes.KEPT if each == number else Takes.NEW) for each in range(3)))
    assert world.send(tcp()) == number
    assert world.send(tcp(flags=SYN)) != number


def test_states_and_counts_follow_the_packets(world):
    number = world.send(tcp(flags=SYN))
    assert states(world) == {State.SYN_RECV: 1}
    world.send(tcp())
    assert states(world) == {State.ESTABLISHED: 1}
    assert (world.count(number).active, world.count(number).inactive) == (1, 0)
    world.send(tcp(flags=FIN | ACK))
    assert states(world) == {State.FIN_WAIT: 1}
    assert (world.count(number).active, world.count(number).inactive) == (0, 1)
    world.send(tcp(flags=RST))
    assert states(world) == {State.CLOSE: 1}


def test_packets_and_bytes_are_counted_at_the_server(world):
    packet = tcp(flags=SYN)
    number = world.send(packet)
    world.send(tcp())
    world.send(tcp(payload=b"x" * 100), count=10, total=1400)
    world.send(tcp(payload=b"x" * 1000), count=5)  # a super-packet

    row = world.count(number)
    assert (row.connections, row.packets, row.bytes) == (1, 17, 2 * 40 + 10 * 140 + 1040)


@both
@pytest.mark.parametrize("flags", [SYN, ACK, FIN | ACK])
def test_tcp_to_a_port_without_a_service_is_reset_from_the_virtual_address(world, version, flags):
    assert world.send(tcp(to=81, flags=flags, version=version)) is None

    (answer,) = world.written
    assert flags_of(answer) & RST
    assert packets.l4_start(answer) == (20 if version == 4 else 40)
    source = answer[12:16] if version == 4 else answer[8:24]
    assert source == ip_address(VIPS[version]).packed
    assert world.balancer.drops == {"service_port": 1}


@both
def test_udp_to_a_port_without_a_service_is_answered_by_an_icmp_error(world, version):
    assert world.send(udp(to=81, version=version)) is None

    (answer,) = world.written
    assert answer[20 if version == 4 else 40 :][:2] == (bytes([3, 3]) if version == 4 else bytes([1, 4]))


@both
@pytest.mark.parametrize("rows", [[], [Takes.KEPT, Takes.NOTHING]])
def test_without_a_server_that_takes_flows_clients_are_refused(world, version, rows):
    world.servers(*(world.row(number, takes=takes) for number, takes in enumerate(rows)))

    assert world.send(tcp(flags=SYN, version=version)) is None
    assert world.send(udp(version=version)) is None

    assert flags_of(world.written[0]) == RST | ACK
    assert world.written[1][20 if version == 4 else 40] == (3 if version == 4 else 1)
    assert world.service().drops == {"service_empty": 2}


def test_the_narrower_range_of_ports_wins():
    world = World()
    for number, ports in ((1, ()), (2, ((8000, 8099),)), (3, ((8080, 8080), (80, 81)))):
        world.serve(number, ports=ports)
        world.servers(number, service=number)

    found = {
        port: world.send(tcp(to=port, flags=SYN))
        for port in (1, 79, 80, 81, 82, 8000, 8079, 8080, 8099, 8100)
    }

    assert found == {1: 1, 79: 1, 80: 3, 81: 3, 82: 1, 8000: 2, 8079: 2, 8080: 3, 8099: 2, 8100: 1}


def test_protocols_of_one_port_are_flows_of_their_own(world):
    world.serve(protocols=(6, 17, 132))
    sctp = packets.ipv4(
        struct.pack("!HHII", 5000, 80, 1, 2) + bytes(20),
        protocol=132,
        source=CLIENTS[4].format(1),
        destination=VIPS[4],
    )

    numbers = [world.send(tcp(flags=SYN)), world.send(udp()), world.send(sctp)]

    assert None not in numbers
    assert len(world.service().flows) == 3
    assert {row.protocol for row in world.flows()} == {6, 17, 132}


@both
def test_packets_with_options_belong_to_the_same_flows(world, version):
    number = established(world, version=version)
    packet = tcp(version=version)
    odd = packets.with_options(packet) if version == 6 else tcp(options=bytes([1, 1, 1, 0]))

    assert world.send(odd) == number
    assert len(world.service().flows) == 1


@both
def test_short_datagrams_belong_to_the_same_flows(world, version):
    number = world.send(udp(version=version))

    assert world.send(udp(version=version, payload=b"")) == number
    assert len(world.service().flows) == 1


def test_each_datagram_is_scheduled_anew_with_one_packet():
    world = World()
    world.serve(scheduler="rr", one_packet=True)
    world.servers(0, 1, 2)

    assert [world.send(udp()) for _ in range(6)] == [0, 1, 2, 0, 1, 2]
    assert len(world.service().flows) == 0
    assert world.count(0).connections == 2
    assert [world.send(tcp(flags=flags)) for flags in (SYN, ACK)] == [0, 0]


# Unknown flows


@pytest.mark.parametrize("scheduler", ["rr", "wlc", "lc", "sed", "nq", "ovf", "wrr"])
def test_tcp_that_no_table_knows_is_reset(scheduler):
    world = World()
    world.serve(scheduler=scheduler)
    world.servers(0, 1)

    assert world.send(tcp()) is None

    assert flags_of(world.written[0]) == RST
    assert world.service().drops == {"service_unknown": 1}
    assert world.send(tcp(flags=RST)) is None
    assert len(world.written) == 1


@pytest.mark.parametrize("scheduler", ["maglev", "sh", "dh", "fo"])
def test_tcp_that_no_table_knows_goes_where_it_always_went(scheduler):
    world = World()
    world.serve(scheduler=scheduler)
    world.servers(0, 1)
    expected = world.send(tcp(flags=SYN))
    other = World()
    other.serve(scheduler=scheduler)
    other.servers(0, 1)

    assert other.send(tcp(flags=FIN | ACK)) == expected
    assert len(other.service().flows) == 0
    assert other.send(tcp()) == expected
    assert states(other) == {State.MIDSTREAM: 1}


def test_new_flows_are_limited_and_known_ones_are_not():
    world = World()
    world.serve(new_flows=10)
    world.servers(0, 1, 2)
    number = established(world)

    passed = [world.send(tcp(port=port, flags=SYN)) for port in range(1000, 1100)]

    assert sum(each is not None for each in passed) == 19
    assert world.service().drops["service_rate"] == 81
    assert world.send(tcp()) == number
    assert world.send(tcp(port=999)) is not None, "a packet in midstream does not start a flow"
    assert world.send(tcp(port=2000, flags=SYN), now=1.0) is not None
    assert not world.written


@pytest.mark.slow
@pytest.mark.parametrize("scheduler", ["maglev", "wlc"])
def test_a_flood_of_syns_takes_no_flow_from_its_server(scheduler):
    world = World()
    world.serve(scheduler=scheduler, new_flows=0, flows=10_000, cache=10_000)
    world.servers(0, 1, 2)
    flows = {port: established(world, port=port) for port in range(1000, 2000)}

    for number in range(20_000):
        world.send(tcp(client=2 + number % 200, port=number % 60_000 + 1, flags=SYN), 1.0)
    world.servers(0, 1, 2, 3)

    assert {port: world.send(tcp(port=port)) for port in flows} == flows
    assert len(world.service().flows) <= 10_000


def test_a_full_table_refuses_new_flows():
    world = World()
    world.serve(scheduler="rr", flows=64)
    world.servers(0, 1)

    passed = [established_or_not(world, port) for port in range(1000, 1300)]

    assert len(world.service().flows) <= 64
    assert world.service().drops["service_full"] == passed.count(None) > 200
    assert not world.written


def established_or_not(world, port):
    number = world.send(tcp(port=port, flags=SYN))
    if number is not None:
        world.send(tcp(port=port))
    return number


def test_packets_wait_for_no_table():
    world = World()
    world.serve()
    world.balancer.set_servers(1, [world.row(0), world.row(1)])

    assert world.send(tcp(flags=SYN)) is None
    assert world.service().drops == {"service_preparing": 1}
    assert not world.written
    world.work()
    assert world.send(tcp(flags=SYN)) in {0, 1}


# Time


def test_idle_flows_are_forgotten_after_the_times_of_the_service():
    world = World()
    world.serve(scheduler="rr", tcp=50, udp=20)
    world.servers(0, 1)
    number = established(world)
    datagram = world.send(udp())
    assert world.send(tcp(), 50.0) == number

    assert world.send(udp(), 20.1) != datagram
    assert world.send(tcp(flags=ACK | FIN), 100.1) is None, "it had expired before this packet"


def test_sweeps_forget_what_nobody_asks_for(world):
    established(world)
    now = 0.0
    while len(world.service().flows):
        now = max(now, world.balancer.next_deadline())
        world.balancer.handle_deadline(now)
        world.work()
        now += 0.1

    assert 900 < now < 915


def test_nothing_is_due_without_services():
    world = World()
    assert world.balancer.next_deadline() == float("inf")


# Persistence


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("scheduler", ["rr", "wlc", "maglev", "sh"])
def test_a_client_keeps_its_server_for_all_its_flows(scheduler, version):
    world = World()
    world.serve(scheduler=scheduler, persistence=300.0, ports=((80, 80), (443, 443)))
    world.servers(0, 1, 2)

    for client in range(1, 30):
        ports = [(1000, 80), (1001, 443), (1002, 80)]
        numbers = {
            world.send(
                tcp(client, port, flags=SYN, to=to, version=version), now=1000.0 * client + 100.0 * step
            )
            for step, (port, to) in enumerate(ports)
        }
        assert len(numbers) == 1


def test_a_network_of_clients_keeps_its_server():
    world = World()
    world.serve(scheduler="rr", persistence=300.0, prefix4=24, prefix6=48)
    world.servers(0, 1, 2)

    assert {world.send(tcp(client, flags=SYN)) for client in range(1, 20)} == {0}
    assert {world.send(tcp(client, flags=SYN, version=6)) for client in range(1, 20)} == {1}


def test_a_client_is_scheduled_anew_when_its_server_is_drained_and_its_flows_stay():
    world = World()
    world.serve(scheduler="rr", persistence=300.0)
    world.servers(0, 1)
    assert established(world) == 0

    world.servers(world.row(0, takes=Takes.KEPT), 1)

    assert world.send(tcp()) == 0
    assert world.send(tcp(port=5001, flags=SYN)) == 1
    assert world.send(tcp(port=5002, flags=SYN)) == 1


# The sorry server


def test_new_flows_go_to_the_sorry_server_while_the_agent_says_so_and_stay_there(world):
    flows = {port: established(world, port=port) for port in range(1000, 1050)}

    world.servers(0, 1, 2, sorry=world.row(9), is_sorry=True)
    sorry = {port: established(world, port=port) for port in range(2000, 2050)}

    assert set(sorry.values()) == {9}
    assert {port: world.send(tcp(port=port)) for port in flows} == flows
    world.servers(0, 1, 2, sorry=world.row(9))
    assert {port: world.send(tcp(port=port)) for port in sorry} == sorry
    assert 9 not in {world.send(tcp(port=port, flags=SYN)) for port in range(3000, 3050)}
    assert world.count(-1).active == 50


def test_the_sorry_server_takes_flows_when_no_other_does(world):
    world.servers(world.row(0, takes=Takes.NOTHING), sorry=world.row(9))

    assert world.send(tcp(flags=SYN)) == 9


def test_the_sorry_server_may_be_one_of_the_servers(world):
    world.servers(0, 1, sorry=world.row(0), is_sorry=True)

    assert world.send(tcp(flags=SYN)) == 0
    assert [row.active for row in world.balancer.counters(1)] == [0, 0, 1]


# What is dropped


def gone(world):
    established(world)
    world.servers()
    return tcp(), "service_gone"


def gone_datagram_in_fragments(world):
    first, later, _ = fragments_of(4, 1000)
    world.send(first)
    world.servers()
    return later, "service_gone"


def unknown(world):
    world.serve(scheduler="rr")
    return tcp(), "service_unknown"


def too_many(world):
    world.serve(new_flows=1)
    for port in (1, 2):
        world.send(udp(port=port))
    return udp(port=3), "service_rate"


def without_servers(world):
    world.servers()
    return tcp(flags=SYN), "service_empty"


def full(world):
    world.serve(scheduler="rr", flows=64)
    for client in range(1, 250):
        established(world, client=client)
    return next(packet for port in range(100) if world.send(packet := udp(port=port)) is None), "service_full"


@pytest.mark.parametrize("make", [gone, gone_datagram_in_fragments, unknown, too_many, without_servers, full])
def test_each_packet_that_a_service_drops_is_counted(world, make):
    packet, reason = make(world)
    before = world.service().drops[reason]

    assert world.send(packet, count=7) is None

    assert world.service().drops[reason] - before == 7
    assert not world.balancer.drops


def test_each_packet_that_comes_before_the_servers_are_known_is_counted():
    world = World()
    world.serve()
    world.balancer.set_servers(1, [world.row(0)])

    assert world.send(udp(), count=7) is None

    assert world.service().drops == {"service_preparing": 7}
    assert not world.written


@both
def test_each_packet_that_no_service_is_for_is_counted(world, version):
    header = 20 if version == 4 else 40
    for packet, reason in (
        (udp(to=81, version=version), "service_port"),
        (udp(version=version)[:header], "tun_malformed"),
        (udp(version=version)[: header + 3], "tun_malformed"),
    ):
        before = world.balancer.drops[reason]

        assert world.send(packet, count=7) is None

        assert world.balancer.drops[reason] - before == 7


@both
def test_all_packets_and_bytes_of_a_flow_are_counted_whichever_way_they_take(world, version):
    first = udp(version=version)
    number = world.send(first, count=2, total=2 * len(first))
    for _ in range(2):
        world.send(first, count=3, total=3 * len(first))

    row = world.count(number)
    assert (row.packets, row.bytes) == (8, 8 * len(first))


# Looking ahead


def peek(world, packet):
    peer = world.balancer.vip(world.vips[packet[0] >> 4]).peek(memoryview(bytearray(packet)))
    return None if peer is None else peer.number - 1


@both
def test_the_server_of_a_flow_that_goes_on_is_seen_ahead_and_nothing_counted(world, version):
    number = established(world, version=version)
    datagrams = [world.send(udp(version=version, payload=bytes(20))) for _ in range(2)]
    before = world.balancer.counters(1)

    assert peek(world, tcp(version=version)) == number
    assert peek(world, udp(version=version, payload=bytes(20))) == datagrams[0]
    assert world.balancer.counters(1) == before


@both
def test_what_is_to_be_looked_at_one_by_one_is_not_seen_ahead(world, version):
    established(world, version=version)
    for _ in range(2):
        world.send(udp(version=version, payload=bytes(20)))
    world.send(tcp(flags=SYN, port=6000, version=version))
    world.send(udp(port=6000, version=version, payload=bytes(20)))
    build = packets.ipv4 if version == 4 else packets.ipv6

    for packet in (
        *(tcp(flags=flags | ACK, version=version) for flags in (SYN, FIN, RST)),
        tcp(port=6000, version=version),  # half open
        udp(port=6000, version=version, payload=bytes(20)),  # the first of its flow
        tcp(port=7000, version=version),  # unknown
        tcp(to=81, version=version),
        fragments_of(version, 5000)[0],
        build(bytes(40), protocol=47, destination=VIPS[version]),
        tcp(version=version)[:-1],
        tcp(version=version)[:20],
    ):
        assert peek(world, packet) is None


@both
def test_flows_of_a_server_that_is_gone_are_not_seen_ahead(world, version):
    number = established(world, version=version)
    world.servers(*({0, 1, 2} - {number}))

    assert peek(world, tcp(version=version)) is None


# What is written into packets


@both
def test_servers_of_one_peer_are_told_apart_by_the_dscp(world, version):
    world.servers(world.row(0, dscp=2))
    vip = world.balancer.vip(world.vips[version])

    for packet in (
        tcp(flags=SYN, tos=1, version=version),
        tcp(tos=0x2D, version=version),
        tcp(tos=1, version=version),
    ):
        assert world.send(packet) == 0
        expected = packet[1] & 3 if version == 4 else packet[1] >> 4 & 3
        assert (
            world.last[1] >> 2 == 2 if version == 4 else (world.last[0] & 15) << 2 | world.last[1] >> 6 == 2
        )
        assert (world.last[1] & 3 if version == 4 else world.last[1] >> 4 & 3) == expected
        assert packets.is_ip_checksum_right(bytes(world.last))
        kept = slice(2, 10) if version == 4 else slice(2, None)
        assert bytes(world.last)[kept] == packet[kept]
    assert vip.peek(memoryview(bytearray(tcp(version=version)))) is None  # each packet is changed
    world.servers(0)
    world.send(tcp(flags=SYN, version=version))
    world.send(tcp(version=version))
    assert vip.peek(memoryview(bytearray(tcp(version=version)))) is not None


def test_packets_of_all_others_stay_as_they_are(world):
    packet = tcp(flags=SYN, tos=0xFF)
    world.send(packet)

    assert bytes(world.last) == packet


@both
@examples(300)
@given(st.binary(max_size=80), st.integers(0, 100), st.data())
def test_garbage_is_dropped_answered_or_sent_and_nothing_raised(version, garbage, at, data):
    world = World()
    world.serve(protocols=(6, 17, 132), scheduler="fo")
    world.servers(0)
    base = data.draw(
        st.sampled_from(
            [
                tcp(version=version),
                udp(version=version),
                error(answer_of(tcp(version=version)), version),
                fragments_of(version, 9)[1],
            ]
        )
    )
    packet = bytes(base[:1]) + bytes(base[1:at]) + garbage

    assert world.send(packet) in {0, None}
    assert world.send(base[: max(1, at)]) in {0, None}


def test_turns_are_shared_by_the_ports_protocols_and_ip_versions_of_a_service(world):
    world.serve(scheduler="rr", ports=((80, 81),))
    world.servers(0, 1, 2, 3)

    sent = (tcp(flags=SYN), udp(), tcp(flags=SYN, version=6), tcp(flags=SYN, to=81, port=7))

    assert {world.send(each) for each in sent} == {0, 1, 2, 3}
