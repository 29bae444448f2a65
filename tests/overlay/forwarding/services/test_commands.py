"""Each field of the agent's messages about services by itself; tests/two_nodes/test_services.py sends packets."""

from __future__ import annotations

from ipaddress import ip_address
from types import SimpleNamespace

import pytest

from overlay.forwarding.peer import LivePeer
from overlay.forwarding.services.commands import Services
from overlay.forwarding.services.server import Takes
from overlay.forwarding.services.settings import ServiceSettings
from overlay.forwarding.workqueue import Workqueue
from overlay.link.messages import OWN
from overlay.link.service_messages import (
    NO_ANSWER,
    AskFlows,
    AskServices,
    FlowFilter,
    Flows,
    PermitRow,
    Pin,
    Pinned,
    RemoveService,
    ServerCounters,
    ServerRow,
    ServiceCounters,
    ServiceTotals,
    SetPermits,
    SetServers,
    SetService,
)
from overlay.reasons import Drops
from overlay.wire.bounds import ROWS
from overlay.wire.flow_key import flow_key
from tests import packets
from tests.overlay.forwarding.services.conftest import CLIENTS, VIPS, tcp, udp
from tests.overlay.forwarding.services.test_shortcuts import Lane

VIP, CLIENT = ip_address(VIPS[4]).packed, ip_address(CLIENTS[4].format(1)).packed
SERVICE = SetService(
    3, "web", [VIP], [6, 17], [(80, 80)], "rr", 30.0, 24, 64, True, [1.0, 2.0, 3.0], [4, 5000, 600]
)


class Bench:
    """The services of a forwarder with peers 1 and 2, and what it reports to the agent and writes."""

    def __init__(self):
        self.own, self.peers = LivePeer(OWN), {number: LivePeer(number) for number in (1, 2)}
        self.jobs, self.drops = Workqueue(), Drops()
        self.reports, self.written, self.resent = [], [], []
        self.error = None
        self.link_is_idle = True
        self.services = Services(
            self.peers, self.own, self.jobs, self.drops,
            write=self.write, resend=self.resent.extend, report=self.reports.append, send=self.send_payload,
        )  # fmt: skip

    def write(self, buffers):
        if self.error:
            raise self.error
        self.written.append([bytes(each) for each in buffers])

    def send_payload(self, peer, keypair, payload):
        raise AssertionError  # there is no other director

    def tell(self, *commands, now=0.0):
        for command in commands:
            self.services.handle(command, lambda: self.link_is_idle, now)
        if self.jobs.is_ready():
            self.jobs.run(now)

    def serve(self, *rows, sorry=(), is_sorry=False, service=3, **settings):
        plain = {
            "persistence": 0.0,
            "one_packet": False,
            "idle": [900.0, 120.0, 300.0],
            "limits": [0, 5000, 600],
        }
        fields = {name: getattr(SERVICE, name) for name in SetService.__slots__}
        self.tell(SetService(**(fields | plain | {"service": service} | settings)))
        self.tell(SetServers(service, list(rows), list(sorry), is_sorry))

    def send(self, packet, now=0.0, count=1):
        vip = self.services.vip(packet[16:20])
        peer = self.services.choose(vip, memoryview(bytearray(packet)), now, count, count * len(packet))
        return None if peer is None else peer.number

    def service(self, number=3):
        return self.services._balancer.service(number)

    def ask(self, now=0.0):
        """Return the counters in each report."""
        self.reports.clear()
        self.tell(AskServices(9), now=now)
        return list(self.reports)


@pytest.fixture
def bench():
    return Bench()


def test_each_setting_of_a_service_is_what_the_agent_says(bench):
    bench.tell(SERVICE)

    assert bench.service().name == "web"
    assert bench.service().settings == ServiceSettings(
        scheduler="rr", persistence=30.0, prefix4=24, prefix6=64, one_packet=True, tcp=1.0, fin=2.0, udp=3.0,
        new_flows=4, flows=5000, cache=600,
    )  # fmt: skip


def test_a_service_is_at_its_addresses_protocols_and_ports_and_at_no_others(bench):
    bench.serve(ServerRow(0, "web1:0", 1, 1, 0), protocols=[17], ports=[(80, 81)])

    assert bench.services.is_virtual(VIP)
    assert not bench.services.is_virtual(CLIENT)
    assert bench.services.vip(CLIENT) is None
    assert [bench.send(udp(to=port)) for port in (79, 80, 81, 82)] == [None, 1, 1, None]
    assert bench.send(tcp(flags=packets.SYN)) is None


def test_each_field_of_a_server_is_what_the_agent_says(bench):
    rows = [ServerRow(7, "a:0", 2, 5, 1, 6, 30, 20, [(6, 2)]), ServerRow(8, "b:0", OWN, 1, 2)]
    bench.serve(*rows, sorry=[ServerRow(17, "sorry:0", 1, 1, 0)], is_sorry=True)

    (first, second), sorry = bench.service().by_number.values(), bench.service().sorry
    assert (first.number, first.key, first.peer, first.weight, first.takes) == (
        7,
        "a:0",
        bench.peers[2],
        5,
        Takes.KEPT,
    )
    assert (first.dscp, first.upper, first.lower, first.apart) == (6, 30, 20, {6: Takes.NOTHING})
    assert (second.peer, second.takes) == (bench.own, Takes.NOTHING)
    assert (sorry.key, sorry.peer) == ("sorry:0", bench.peers[1])
    assert bench.send(udp()) == 1


@pytest.mark.parametrize("is_sorry", [False, True])
def test_it_is_the_turn_of_the_sorry_server_when_the_agent_says_so(bench, is_sorry):
    bench.serve(ServerRow(0, "a:0", 1, 1, 0), sorry=[ServerRow(1, "s:0", 2, 1, 0)], is_sorry=is_sorry)

    assert bench.send(udp()) == (2 if is_sorry else 1)


@pytest.mark.parametrize(
    "command",
    [
        SetServers(4, []),
        RemoveService(4),
        SetServers(3, [ServerRow(0, "x:0", 9, 1, 0)]),
        SetServers(3, [], [ServerRow(0, "x:0", 9, 1, 0)]),
        SetServers(3, [ServerRow(0, "x:0", 1, 1, 3)]),
        SetServers(3, [ServerRow(0, "x:0", 1, 1, 0)], elsewhere=[(0, [1, 1])]),
        SetServers(3, [ServerRow(0, "x:0", 1, 1, 0)], elsewhere=[(5, [1])]),
        SetServers(3, [ServerRow(0, "x:0", 1, 1, 0)], [ServerRow(1, "s:0", 1, 1, 0)], elsewhere=[(0, [1])]),
        SetService(4, "x", [VIP], [6], [], "magic", 0.0, 32, 128, False, [1.0] * 3, [1] * 3),
        SetService(4, "x", [], [6], [], "rr", 0.0, 32, 128, False, [1.0] * 3, [1] * 3),
        SetService(4, "x", [VIP], [], [], "rr", 0.0, 32, 128, False, [1.0] * 3, [1] * 3),
    ],
)
def test_what_a_command_cannot_mean_is_counted_and_changes_nothing(bench, command):
    bench.serve(ServerRow(0, "a:0", 1, 1, 0))

    bench.tell(command)

    assert bench.drops == {"link": 1}
    assert bench.send(udp()) == 1
    assert [total.service for total in bench.ask()[0].services] == [3]


def test_a_service_that_is_removed_is_nowhere_and_unknown(bench):
    bench.serve(ServerRow(0, "a:0", 1, 1, 0))

    bench.tell(RemoveService(3))

    assert not bench.services.is_virtual(VIP)
    assert bench.ask() == [ServiceCounters(9, 0.0, [], [], {}, True)]
    bench.tell(RemoveService(3))
    assert bench.drops == {"link": 1}


# Permits


@pytest.mark.parametrize(("peers", "admitted"), [([1], [1]), ([1, 2], [1, 2]), ([], [1, 2])])
def test_peers_of_a_permit_are_those_that_it_names_or_all(bench, peers, admitted):
    bench.tell(SetPermits([PermitRow(VIP, False, peers, [17], [(80, 80)])]))

    assert [
        number for number, peer in bench.peers.items() if bench.services.permits.admits(peer, udp())
    ] == admitted


@pytest.mark.parametrize(
    "row",
    [
        PermitRow(CLIENT, False, [], [17], [(80, 80)]),
        PermitRow(VIP, True, [], [17], [(80, 80)]),
        PermitRow(VIP, False, [], [6], [(80, 80)]),
        PermitRow(VIP, False, [], [17], [(81, 90)]),
    ],
)
def test_each_field_of_a_permit_counts(bench, row):
    bench.tell(SetPermits([row]))

    assert not bench.services.permits.admits(bench.peers[1], udp())


@pytest.mark.parametrize("returns", [False, True])
def test_answers_go_back_through_a_director_where_the_permit_says_so(bench, returns):
    bench.tell(SetPermits([PermitRow(VIP, False, [], [17], [(80, 80)], returns)]))
    answer = packets.udp(source=VIPS[4], destination=CLIENTS[4].format(1))

    bench.services.permits.admits(bench.peers[1], udp())
    assert bench.services.permits.director_of(answer) is (bench.peers[1] if returns else None)

    bench.services.deliver(memoryview(packets.PLAIN + udp()))
    assert bench.services.permits.director_of(answer) is (bench.own if returns else None)


@pytest.mark.parametrize("is_clear", [False, True])
def test_an_answer_goes_by_the_session_with_the_director_of_its_client_if_that_has_one(bench, is_clear):
    asked_at, server = [], LivePeer(2)
    director = bench.peers[1] = SimpleNamespace(
        number=1, clear="vxlan" if is_clear else None, keypairs=SimpleNamespace(usable=asked_at.append)
    )
    bench.tell(SetPermits([PermitRow(VIP, False, [], [17], [(80, 80)], True)]))
    answer = memoryview(packets.udp(source=VIPS[4], destination=CLIENTS[4].format(1)))
    assert bench.services.instead_of(server, answer, 5.0) == (server, None)

    bench.services.permits.admits(director, udp())
    assert bench.services.instead_of(server, answer, 5.0) == (director, None)
    assert asked_at == ([] if is_clear else [5.0])

    director.keypairs.usable = lambda _: "keypair"
    assert bench.services.instead_of(server, answer, 5.0) == (director, None if is_clear else "keypair")

    bench.services.deliver(memoryview(packets.PLAIN + udp()))  # the client is one of this node's now
    assert bench.services.instead_of(server, answer, 5.0) == (server, None)


# Packets for this node


def test_a_packet_for_a_server_that_is_this_node_goes_into_the_tun(bench):
    bench.services.deliver(memoryview(packets.PLAIN + udp()))
    bench.services.give_back(memoryview(packets.PLAIN + tcp()))

    assert bench.written == [[packets.PLAIN + udp()], [packets.PLAIN + tcp()]]
    assert not bench.drops


@pytest.mark.parametrize(
    ("error", "reason"), [(BlockingIOError(11, "EAGAIN"), "tun_full"), (OSError(5, "EIO"), "tun_refused")]
)
def test_what_the_tun_does_not_take_is_counted(bench, error, reason):
    bench.error = error

    for _ in range(2):
        bench.services.deliver(memoryview(packets.PLAIN + udp()))

    assert bench.drops == {reason: 2}


# Pins


PINNED = (17, CLIENT, 5000, VIP, 80)


def test_a_pinned_flow_and_no_other_goes_to_its_server_until_it_is_unpinned(bench):
    bench.serve(ServerRow(0, "a:0", 1, 1, 2), ServerRow(1, "b:0", 2, 1, 2))

    bench.tell(Pin(9, [(flow_key(*PINNED), 3, 1)], []))

    assert bench.reports == [Pinned(9, [])]
    others = [udp(port=5001), udp(client=2), udp(to=81), tcp(flags=packets.SYN)]
    assert [bench.send(packet) for packet in (udp(), *others)] == [2, None, None, None, None]

    bench.tell(Pin(10, [], [flow_key(17, CLIENT, 5001, VIP, 80)]))
    assert bench.send(udp()) == 2
    bench.tell(Pin(11, [], [flow_key(*PINNED)]))
    assert bench.send(udp()) is None
    bench.tell(Pin(NO_ANSWER, [(flow_key(*PINNED), 3, 1)], []))
    assert bench.reports == [Pinned(9, []), Pinned(10, []), Pinned(11, [])]


def test_twin_knows_flows_that_are_pinned_and_their_answers_until_they_are_not(bench):
    lane = bench.services.shortcuts.lane = Lane()
    bench.serve(ServerRow(0, "a:0", OWN, 1, 0), ServerRow(1, "b:0", 2, 1, 2))
    bench.tell(SetPermits([PermitRow(VIP, True, [2], [17], [(80, 80)])]))
    lane.took()
    keys = [flow_key(17, CLIENT, 5000, VIP, port) for port in (80, 81)]
    to_this_node = flow_key(17, CLIENT, 5001, VIP, 80)

    bench.tell(Pin(9, [(keys[0], 3, 1), (keys[1], 3, 1), (to_this_node, 3, 0)], []))

    uncounted = bench.service().numbered(1).uncounted
    answers = flow_key(17, VIP, 80, CLIENT, 5000)
    assert lane.known == {keys[0]: uncounted, keys[1]: uncounted, answers: bench.peers[2].state}
    lane.known.clear()  # as when servers change
    bench.services.remember(bench.services.vip(VIP), udp(port=5000))
    assert lane.known == {keys[0]: uncounted, answers: bench.peers[2].state}
    bench.tell(Pin(10, [], [keys[0], flow_key(17, CLIENT, 5002, VIP, 80)]))
    assert lane.took() == [keys[0]]
    lane.known.clear()
    bench.services.remember(bench.services.vip(VIP), udp(port=5000))
    assert lane.known == {}


def test_twin_forgets_flows_with_their_service(bench):
    lane = bench.services.shortcuts.lane = Lane()
    bench.serve(ServerRow(0, "a:0", 1, 1, 0))
    assert bench.send(udp()) == 1
    lane.took()

    while bench.service().sweep(1e6):
        pass

    assert lane.took()


def test_flows_that_cannot_be_pinned_are_told_by_their_places(bench):
    bench.serve(ServerRow(0, "a:0", 1, 1, 0))
    key = flow_key(*PINNED)

    bench.tell(Pin(9, [(key, 4, 0), (key, 3, 0), (key, 3, 7)], []))

    assert bench.reports == [Pinned(9, [0, 2])]


# Counters


def test_counters_are_told_of_each_server_and_service_with_the_agent_s_numbers(bench):
    bench.serve(ServerRow(5, "a:0", 1, 1, 0), sorry=[ServerRow(17, "s:0", 2, 1, 0)])
    bench.serve(ServerRow(6, "a:0", 1, 1, 0), service=4, ports=[(81, 81)])
    bench.send(udp(), count=2)
    bench.send(tcp(flags=packets.SYN))
    bench.send(tcp(flags=packets.FIN))
    bench.serve(sorry=[ServerRow(17, "s:0", 2, 1, 0)], service=4, ports=[(81, 81)])
    bench.send(udp(to=81))
    bench.send(tcp(port=9))
    bench.send(udp(to=82), count=4)
    size = len(udp())

    (report,) = bench.ask(now=50.0)

    assert (report.serial, report.at, report.is_last) == (9, 50.0, True)
    assert report.servers == [
        ServerCounters(3, 5, 1, 1, 2, 4, 2 * size + 80),
        ServerCounters(3, 17, 0, 0, 0, 0, 0),
        ServerCounters(4, 17, 1, 0, 1, 1, size),
    ]
    assert report.services == [
        ServiceTotals(3, 2, 4, 2 * size + 80, {"service_unknown": 1}),
        ServiceTotals(4, 1, 1, size, {}),
    ]
    assert report.drops == {"service_port": 4}


def test_many_counters_come_in_pieces_as_the_agent_reads_them(bench):
    bench.serve(*(ServerRow(number, f"a:{number}", 1, 1, 0) for number in range(2 * ROWS + 1)))
    bench.link_is_idle = False
    assert bench.ask() == []

    bench.link_is_idle = True
    bench.jobs.run(0.0)

    assert [len(report.servers) for report in bench.reports] == [ROWS, ROWS, 1]
    assert [row.server for report in bench.reports for row in report.servers] == list(range(2 * ROWS + 1))
    assert [len(report.services) for report in bench.reports] == [1, 0, 0]
    assert [report.is_last for report in bench.reports] == [False, False, True]


# Flows


def flows(bench, *, service=3, at=0, most=100, now=0.0, **wanted):
    bench.reports.clear()
    bench.tell(AskFlows(8, service, at, most, FlowFilter(**wanted)), now=now)
    assert {type(report) for report in bench.reports} == {Flows}
    assert {report.serial for report in bench.reports} == {8}
    assert [report.is_last for report in bench.reports] == [False] * (len(bench.reports) - 1) + [True]
    return [row for report in bench.reports for row in report.rows], bench.reports[-1].rest


def test_flows_are_told_with_the_agent_s_number_of_their_server(bench):
    rows = [ServerRow(5, "a:0", 1, 1, 0)]
    bench.serve(*rows, sorry=[ServerRow(17, "s:0", 2, 1, 0)])
    bench.send(udp(port=1))
    bench.tell(SetServers(3, rows, [ServerRow(17, "s:0", 2, 1, 0)], is_sorry=True))
    bench.send(udp(port=2))

    found, rest = flows(bench, now=1.0)

    assert {(row.client_port, row.server, row.idle) for row in found} == {(1, 5, 1.0), (2, 17, 1.0)}
    assert rest is None
    assert [row.client_port for row in flows(bench, server=17)[0]] == [2]


def test_flows_are_asked_for_a_part_at_a_time(bench):
    bench.serve(ServerRow(5, "a:0", 1, 1, 0))
    for port in range(1, 200):
        bench.send(udp(port=port))

    ports, at = [], 0
    while at is not None:
        found, at = flows(bench, at=at, most=70)
        assert len(found) <= 70
        ports += [row.client_port for row in found]

    assert sorted(ports) == list(range(1, 200))


def test_a_service_that_is_not_there_has_no_flows(bench):
    assert flows(bench, service=4) == ([], None)
