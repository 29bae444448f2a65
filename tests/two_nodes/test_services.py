"""A director and a real server: requests of clients reach the server, and its answers reach them."""

from __future__ import annotations

import socket
from ipaddress import ip_address

import pytest

from overlay.forwarding.services.vip import SERVICE
from overlay.link.messages import OWN, Routes, TellSender
from overlay.link.service_messages import (
    VIRTUAL,
    AskFlows,
    AskServices,
    FlowFilter,
    Flows,
    PermitRow,
    Pin,
    Pinned,
    RemoveService,
    ServerRow,
    ServiceCounters,
    SetPermits,
    SetServers,
    SetService,
)
from overlay.wire.bulk import AES_256_GCM
from overlay.wire.flow_key import flow_key
from tests import packets
from tests.packets import ACK, FIN, RST, SYN
from tests.sim import World

VIP, VIP6 = ip_address("203.0.113.80"), ip_address("2001:db8:9::80")
CLIENT, CLIENT6 = "198.51.100.7", "2001:db8:7::7"
TCP = socket.IPPROTO_TCP


class Director:
    """A node that balances a service, and its commands."""

    def __init__(self, world, director, server):
        self.world, self.node, self.server = world, director, server
        director.tell(
            SetService(
                0, "web", [VIP.packed, VIP6.packed], [TCP], [(80, 80)], "maglev", 0.0, 32, 128, False,
                [900.0, 120.0, 300.0], [50_000, 1_000_000, 65_536],
            )
        )  # fmt: skip
        self.serve([ServerRow(0, "web1:0", 1, 1, 0)])
        self.route(VIRTUAL)
        server.tell(
            SetPermits([PermitRow(each.packed, False, [1], [TCP], [(80, 80)]) for each in (VIP, VIP6)])
        )
        world.run(1)

    def route(self, number):
        rows = [(VIP.packed, 32, number), (VIP6.packed, 128, number)]
        self.node.tell(Routes(rows, [], True))

    def serve(self, rows, sorry=(), **how):
        self.node.tell(SetServers(0, rows, list(sorry), **how))

    def send(self, *sent):
        self.node.tun.outgoing += [packets.PLAIN + packet for packet in sent]
        self.world.run(1)

    def report(self, kind):
        self.world.run(1)
        return [each for each in self.node.reported if isinstance(each, kind)][-1]


def tcp(flags=SYN, *, version=4, port=40000, to_port=80, payload=b"", **how):
    source, destination = (CLIENT, str(VIP)) if version == 4 else (CLIENT6, str(VIP6))
    return packets.tcp(
        payload,
        version=version,
        ports=(port, to_port),
        flags=flags,
        source=source,
        destination=destination,
        **how,
    )


@pytest.fixture(params=["encrypted", "ipip"])
def director(request):
    world = World(ciphers=[AES_256_GCM])
    a, b = world.pair() if request.param == "encrypted" else world.raw_pair("ipip")
    return Director(world, a, b)


@pytest.mark.parametrize("version", [4, 6])
def test_packets_of_a_client_reach_the_server_as_they_are(director, version):
    sent = [tcp(SYN, version=version), tcp(ACK, version=version, payload=b"hello")]
    for packet in sent:
        director.send(packet)
    assert director.server.received == sent
    assert not director.server.peer().drops


def test_super_packet_of_a_client_reaches_the_server(director):
    whole = tcp(ACK, payload=bytes(range(256)) * 40)
    director.send(tcp(SYN), tcp(ACK))
    packet, virtio = packets.as_super_packet(whole, 1000)
    director.node.tun.outgoing.append(virtio + packet)
    director.world.run(1)
    heard = b"".join(packet[40:] for packet in director.server.received[2:])
    assert heard == bytes(range(256)) * 40
    (row,) = director_counters(director)
    assert (row.packets, row.bytes) == (2 + 11, 2 * 40 + len(packet))


def director_counters(director):
    director.node.tell(AskServices(7))
    report = director.report(ServiceCounters)
    assert (report.serial, report.is_last) == (7, True)
    return report.servers


def test_many_packets_of_one_flow_go_together(director):
    director.send(tcp(SYN), tcp(ACK))
    sent = [tcp(ACK, payload=bytes([number]) * 100, sequence=number * 100) for number in range(40)]
    director.send(*sent)
    assert director.server.received[2:] == sent
    (row,) = director_counters(director)
    assert (row.packets, row.bytes) == (42, 2 * 40 + 40 * 140)


@pytest.mark.parametrize("version", [4, 6])
def test_packets_of_many_flows_that_come_together_go_each_to_its_own_server(director, version):
    director.serve([ServerRow(0, "web1:0", 1, 1, 0), ServerRow(1, "own:0", OWN, 1, 0)])
    director.world.run(1)
    ports = range(40000, 40032)
    for flags in (SYN, ACK):
        director.send(*[tcp(flags, version=version, port=port) for port in ports])
    at_server = list(director.server.received)
    director.server.received.clear()
    director.node.received.clear()

    director.send(*[tcp(ACK, version=version, port=port, payload=b"more") for port in ports])

    def from_ports(received):
        at = 20 if version == 4 else 40
        return {int.from_bytes(packet[at : at + 2], "big") for packet in received}

    assert from_ports(director.server.received) == from_ports(at_server)
    assert from_ports(director.server.received) | from_ports(director.node.received) == set(ports)
    assert 0 < len(director.server.received) < len(ports)


def test_end_of_a_connection_among_other_packets_of_its_size_is_noted(director):
    director.send(tcp(SYN), tcp(ACK))
    director.send(*[tcp(ACK, sequence=number) for number in range(20)], tcp(packets.FIN | ACK, sequence=20))

    (row,) = director_counters(director)
    assert (row.active, row.inactive) == (0, 1)


def answer(*, version=4, port=40000, from_port=80, **how):
    source, destination = (str(VIP), CLIENT) if version == 4 else (str(VIP6), CLIENT6)
    return packets.tcp(
        b"",
        version=version,
        ports=(from_port, port),
        flags=SYN | ACK,
        source=source,
        destination=destination,
        **how,
    )


def permit_answers(director):
    rows = [PermitRow(each.packed, True, [1], [TCP], [(80, 80)]) for each in (VIP, VIP6)]
    director.node.tell(SetPermits(rows))
    clients = [(ip_address(each).packed, length, 1) for each, length in ((CLIENT, 32), (CLIENT6, 128))]
    director.server.tell(Routes(clients, [], True))


@pytest.mark.parametrize("version", [4, 6])
def test_answer_of_a_server_is_let_in_from_the_address_of_the_service_and_its_ports_alone(director, version):
    sent = [answer(version=version), answer(version=version, from_port=81)]
    director.server.tun.outgoing += [packets.PLAIN + packet for packet in sent]
    director.world.run(1)
    assert director.node.received == []  # nothing is permitted yet, and there is no route back

    permit_answers(director)
    director.server.tun.outgoing += [packets.PLAIN + packet for packet in sent]
    director.world.run(1)
    assert director.node.received == sent[:1]
    assert director.node.peer().drops["source"] == 1


def test_answer_goes_back_to_the_director_of_its_client_where_the_service_says_so(director):
    permit = PermitRow(VIP.packed, False, [1], [TCP], [(80, 80)], True)
    director.server.tell(SetPermits([permit]))
    director.node.tell(SetPermits([PermitRow(VIP.packed, True, [1], [TCP], [(80, 80)])]))
    director.send(tcp(SYN))
    director.server.tun.outgoing.append(packets.PLAIN + answer())
    director.world.run(1)
    assert director.node.received == [answer()]


def test_answer_to_a_client_that_is_not_known_goes_to_the_director_that_sent_last(director):
    director.server.tell(SetPermits([PermitRow(VIP.packed, False, [1], [TCP], [(80, 80)], True)]))
    director.node.tell(SetPermits([PermitRow(VIP.packed, True, [1], [TCP], [(80, 80)])]))
    stranger = packets.tcp(b"", source=str(VIP), destination="198.51.100.99", ports=(80, 4), flags=ACK)
    director.server.tun.outgoing.append(packets.PLAIN + stranger)
    director.world.run(1)
    assert director.node.received == []  # no director has sent anything yet

    director.send(tcp(SYN))
    director.server.tun.outgoing.append(packets.PLAIN + stranger)
    director.world.run(1)
    assert director.node.received == [stranger]


def test_only_answers_from_the_address_go_to_the_director(director):
    director.server.tell(SetPermits([PermitRow(VIP.packed, False, [1], [TCP], [(80, 80)], True)]))
    director.send(tcp(SYN))
    other = packets.tcp(b"", source="10.0.0.1", destination=CLIENT, ports=(80, 40000), flags=ACK)
    director.server.tun.outgoing.append(packets.PLAIN + other)
    director.world.run(1)
    assert director.node.received == []
    assert director.server.drops["no_peer"] == 1


def test_answer_of_a_server_at_the_director_itself_comes_out_of_its_tun_again(director):
    director.node.tell(SetPermits([PermitRow(VIP.packed, False, [1], [TCP], [(80, 80)], True)]))
    director.serve([ServerRow(0, "own:0", OWN, 1, 0)])
    director.send(tcp(SYN))
    assert director.node.received == [tcp(SYN)]
    director.send(answer())
    assert director.node.received == [tcp(SYN), answer()]
    assert director.server.received == []


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [PermitRow(VIP.packed, False, [2], [TCP], [(80, 80)])],  # another director
        [PermitRow(VIP.packed, False, [1], [TCP], [(443, 443)])],  # another port
        [PermitRow(VIP.packed, False, [1], [17], [(80, 80)])],  # another protocol
        [PermitRow(VIP6.packed, False, [1], [TCP], [(80, 80)])],  # another address
        [PermitRow(VIP.packed, True, [1], [TCP], [(80, 80)])],  # answers, not questions
    ],
)
def test_who_is_no_director_of_the_service_cannot_reach_the_server_by_its_address(director, rows):
    director.server.tell(SetPermits(rows))
    director.send(tcp(SYN))
    assert director.server.received == []
    assert director.server.peer().drops["source"] == 1


def test_what_comes_together_with_a_packet_that_is_permitted_is_looked_at_by_itself(director):
    """Before, only the first of several packets of one size and source was checked."""
    inner = director.server.inner()
    permitted = [tcp(ACK, payload=b"1"), tcp(ACK, payload=b"2")]
    foreign = [
        packets.tcp(b"3", ports=(40000, 22), flags=ACK, source=CLIENT, destination=inner) for _ in range(10)
    ]
    director.send(tcp(SYN))
    director.server.received.clear()

    director.send(permitted[0], *foreign, permitted[1])

    assert director.server.received == permitted
    assert director.server.peer().drops["source"] == 10


def test_packet_that_no_service_is_for_is_answered_with_a_reset_from_the_address(director):
    director.send(tcp(SYN, to_port=81))
    (refused,) = director.node.received
    assert packets.parsed(refused)  # whole
    assert (refused[12:16], refused[16:20]) == (VIP.packed, ip_address(CLIENT).packed)
    assert refused[33] & packets.RST
    assert director.server.received == []


def test_ping_of_the_address_is_answered(director):
    request = packets.with_ip_checksum(
        packets.ipv4(bytes.fromhex("0800f7fe00010000"), CLIENT, str(VIP), protocol=1)
    )
    director.send(request)
    (reply,) = director.node.received
    assert (reply[12:16], reply[16:20], reply[20]) == (VIP.packed, ip_address(CLIENT).packed, 0)


def test_server_that_is_this_node_gets_its_packets_out_of_the_tun(director):
    director.serve([ServerRow(0, "own:0", OWN, 1, 0)])
    director.send(tcp(SYN))
    assert director.node.received == [tcp(SYN)]
    assert director.server.received == []


def test_one_of_several_servers_behind_a_peer_is_told_by_a_mark(director):
    director.serve([ServerRow(0, "a:0", 1, 1, 0, dscp=5)])
    director.send(tcp(SYN, tos=1 << 2 | 2))
    (packet,) = director.server.received
    assert packet[1] == 5 << 2 | 2
    assert packets.is_ip_checksum_right(packet)


def test_flow_of_a_check_goes_to_its_server_whatever_the_state(director):
    director.serve([ServerRow(0, "web1:0", 1, 1, 2)])
    director.send(tcp(SYN))
    assert director.server.received == []

    flow = flow_key(TCP, ip_address(CLIENT).packed, 40001, VIP.packed, 80)
    director.node.tell(Pin(9, [(flow, 0, 0)], []))
    assert director.report(Pinned) == Pinned(9, [])
    director.send(tcp(SYN, port=40001))
    assert director.server.received == [tcp(SYN, port=40001)]

    director.node.tell(Pin(10, [], [flow]))
    director.send(tcp(SYN, port=40001))
    assert len(director.server.received) == 1
    director.node.tell(Pin(11, [(flow, 0, 0), (flow, 0, 99), (flow, 99, 0)], []))
    assert director.report(Pinned) == Pinned(11, [1, 2])


def test_packets_of_a_check_go_to_its_server_whatever_they_say_and_are_not_counted(director):
    director.send(tcp(SYN))  # so that the address is known
    flow = flow_key(TCP, ip_address(CLIENT).packed, 40001, VIP.packed, 80)
    director.node.tell(Pin(9, [(flow, 0, 0)], []))
    check = [
        tcp(flags, port=40001, payload=payload)
        for flags, payload in ((SYN, b""), (ACK, b"GET"), (FIN | ACK, b""), (RST, b""), (SYN, b""))
    ]
    for packet in check:
        director.send(packet)
        director.serve([ServerRow(0, "web1:0", 1, 2, 0)])  # everything about flows is forgotten
        director.send(packet)

    assert director.server.received[1:] == [each for packet in check for each in (packet, packet)]
    director.node.tell(AskServices(7))
    (row,) = director.report(ServiceCounters).servers
    assert (row.packets, row.connections, row.active) == (1, 1, 1)


def test_answer_to_a_check_is_let_in_from_its_server_as_far_as_a_permit_says(director):
    answer = packets.tcp(
        b"", ports=(80, 40001), flags=SYN | ACK, source=str(VIP), destination=director.node.inner()
    )
    flow = flow_key(TCP, ip_address(director.node.inner()).packed, 40001, VIP.packed, 80)
    director.server.route([("10.244.1.0/24", 1)])
    for peers, received in (([7], []), ([1], [answer])):
        director.node.tell(SetPermits([PermitRow(VIP.packed, True, peers, [TCP], [(80, 80)])]))
        director.node.tell(Pin(9, [(flow, 0, 0)], []))
        director.server.tun.outgoing.append(packets.PLAIN + answer)
        director.world.run(1)
        assert director.node.received == received


def test_flows_are_told_with_their_server(director):
    director.send(tcp(SYN), tcp(ACK), tcp(SYN, version=6))
    director.node.tell(AskFlows(3, 0, 0, 100, FlowFilter()))
    director.world.run(1)
    rows = [row for each in director.node.reported if isinstance(each, Flows) for row in each.rows]
    assert {(row.client, row.client_port, row.address, row.port, row.server) for row in rows} == {
        (ip_address(CLIENT).packed, 40000, VIP.packed, 80, 0),
        (ip_address(CLIENT6).packed, 40000, VIP6.packed, 80, 0),
    }
    director.node.tell(AskFlows(4, 99, 0, 100, FlowFilter()))
    assert director.report(Flows) == Flows(4, [], True)


def test_sorry_server_has_the_number_that_the_agent_gave_it(director):
    director.serve([], [ServerRow(17, "sorry:0", 1, 1, 0)], is_sorry=True)
    director.send(tcp(SYN))
    assert director.server.received == [tcp(SYN)]
    assert [(row.server, row.packets) for row in director_counters(director)] == [(17, 1)]


def test_fragments_that_come_before_the_first_follow_it_to_the_server(director):
    director.send(tcp(SYN), tcp(ACK))
    before = len(director.server.received)
    whole = tcp(ACK, payload=bytes(range(256)) * 4, fragment=0, identifier=77)
    pieces = []
    for at, size in ((0, 400), (400, 400), (800, 400)):
        part, more = whole[20 + at : 20 + at + size], 20 + at + size < len(whole)
        head = whole[:2] + (20 + len(part)).to_bytes(2, "big") + whole[4:6]
        head += ((0x2000 if more else 0) | at // 8).to_bytes(2, "big") + whole[8:20]
        pieces.append(packets.with_ip_checksum(head + part))

    director.send(*pieces[1:])
    assert len(director.server.received) == before

    director.send(pieces[0])
    assert director.server.received[before:] == pieces


@pytest.mark.parametrize("version", [4, 6])
def test_client_is_told_from_the_address_that_the_underlay_returned_its_packet(director, version):
    packet = tcp(SYN, version=version)
    director.node.tell(TellSender(packet[:60]))
    director.world.run(1)
    (error,) = director.node.received
    ends = (VIP, ip_address(CLIENT)) if version == 4 else (VIP6, ip_address(CLIENT6))
    at = 12 if version == 4 else 8
    both = b"".join(each.packed for each in ends)
    assert error[at : at + len(both)] == both
    assert error.endswith(packet[:60])


def test_packet_too_large_for_the_way_is_answered_from_the_address(director):
    director.send(tcp(SYN), tcp(ACK))
    director.node.peer().path.mtu = 1280
    director.send(tcp(ACK, payload=bytes(1300)))
    error = director.node.received[-1]
    assert (error[12:16], error[16:20], error[20:22]) == (VIP.packed, ip_address(CLIENT).packed, b"\x03\x04")
    assert int.from_bytes(error[26:28], "big") <= 1280


@pytest.mark.parametrize(
    "command",
    [
        RemoveService(5),
        SetServers(5, []),
        SetServers(0, [ServerRow(0, "x:0", 99, 1, 0)]),
        SetServers(0, [ServerRow(0, "x:0", 1, 1, 7)]),
        SetService(1, "x", [VIP.packed], [TCP], [], "magic", 0.0, 32, 128, False, [1.0] * 3, [1] * 3),
        SetService(1, "x", [], [TCP], [], "rr", 0.0, 32, 128, False, [1.0] * 3, [1] * 3),
    ],
)
def test_command_that_means_nothing_is_counted_and_changes_nothing(director, command):
    director.node.tell(command)
    director.send(tcp(SYN))
    assert director.node.drops["link"] == 1
    assert director.server.received == [tcp(SYN)]


def test_service_that_is_removed_is_forgotten_with_its_flows(director):
    director.send(tcp(SYN), tcp(ACK))
    director.node.tell(Routes([], [(VIP.packed, 32), (VIP6.packed, 128)], True))
    director.node.tell(RemoveService(0))
    director.send(tcp(ACK))
    assert len(director.server.received) == 2
    assert director_counters(director) == []


def test_number_of_a_virtual_address_is_that_of_the_link():
    assert SERVICE == VIRTUAL < OWN
