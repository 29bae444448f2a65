"""Commands to a core, and when its timers are due."""

from __future__ import annotations

import math
import socket

import pytest

from overlay.crypto.cookies import CookieHolder
from overlay.encap.encapsulation import Ends
from overlay.forwarding.admission import UNDER_LOAD_WAITING
from overlay.forwarding.callers import CALLERS
from overlay.forwarding.counters import PEERS_PER_MESSAGE
from overlay.link import messages as link
from overlay.session.outputs import Forget, GiveUp, InstallKeypair, Transmit, Wipe
from overlay.wire.messages import CookieReply
from tests import packets
from tests.network import FakeSocket, Flight
from tests.sim import World

# Commands


def test_commands_for_an_unknown_peer_are_no_matter(bench):
    endpoint = ("192.0.2.9", 9)
    for command in (
        Transmit(7, bytes(148)),
        Wipe(7),
        Forget(7, [1]),
        GiveUp(7),
        link.RemovePeer(7),
        link.SetEndpoint(7, endpoint, "dns"),
        link.Routes([(bytes([10, 9, 0, 0]), 16, 7)], [], is_last=True),
        link.Handled(5),
        link.RenewSources(),
    ):
        bench.b.tell(command)
    bench.b.tell(InstallKeypair(7, 77, 1, b"s" * 32, b"r" * 32, True, 1.0, 1.0, endpoint))
    bench.world.run(0)

    assert bench.b.reported[-1] == link.Retired(77)
    assert bench.dropped == {}


def test_an_index_in_use_is_not_installed_twice(bench):
    keypair = bench.peer.keypairs.current
    bench.b.tell(
        InstallKeypair(1, keypair.local_index, 1, b"s" * 32, b"r" * 32, True, 1.0, 1.0, bench.source)
    )

    assert bench.peer.keypairs.current is keypair


def test_a_socket_that_an_earlier_forwarder_used_is_as_the_agent_opened_it(bench):
    used = FakeSocket(bench.b, socket.AF_INET, 51820)
    used.options[0, 10] = 2  # IP_PMTUDISC_DO
    bench.b.tell(link.SetNode(65535, False, []))  # the kernel may fragment

    bench.b.tell(link.Sockets("wireguard", [link.SocketRow(socket.AF_INET, 51820)]), [used])

    assert used.options[0, 10] == 1  # IP_PMTUDISC_WANT


def test_sockets_without_their_descriptors_are_refused(bench):
    bench.b.tell(
        link.Sockets("wireguard", [link.SocketRow(2, 51820), link.SocketRow(10, 51820)]),
        [FakeSocket(bench.b, 2, 51820)],
    )

    assert bench.dropped == {"link": 1}
    assert len(bench.core.sender.sockets) == 2


CONTRADICTIONS = {
    "an encapsulation that there is none of": lambda b: (link.SetPeer(7, 0.0, "nvgre"), []),
    "another encapsulation for a peer": lambda b: (link.SetPeer(1, 0.0, "udp"), []),
    "a GRE key over 32 bits": lambda b: (link.SetPeer(7, 0.0, "gre", [], Ends(2**32)), []),
    "sockets of no encapsulation": lambda b: (
        link.Sockets("nvgre", [link.SocketRow(2, 1)]),
        [FakeSocket(b, 2, 1)],
    ),
    "a role that there is none of": lambda b: (
        link.Sockets("wireguard", [link.SocketRow(2, 1, 9)]),
        [FakeSocket(b, 2, 1)],
    ),
    "more rows than sockets": lambda b: (
        link.Sockets("wireguard", [link.SocketRow(2, 1)] * 2),
        [FakeSocket(b, 2, 1)],
    ),
    "more sockets than rows": lambda b: (
        link.Sockets("wireguard", [link.SocketRow(2, 1)]),
        [FakeSocket(b, 2, 1)] * 2,
    ),
    "a raw socket that did not come": lambda b: (link.SetNode(1420, True, []), []),
    "a path socket that did not come": lambda b: (link.SetNode(1420, False, [], families=[2]), []),
    "a socket that nothing is said of": lambda b: (link.SetNode(1420, False, []), [FakeSocket(b, 2, 1)]),
    "a second start": lambda b: (link.Start(bytes(32), 1420, True, True, [1.0] * 14), []),
}


@pytest.mark.parametrize("make", CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_a_command_that_contradicts_itself_is_counted_and_changes_nothing(bench, make):
    command, sockets = make(bench.b)
    before = [udp.closes_at for udp in bench.core.sender.sockets], sorted(bench.core.peers)

    for _ in range(2):
        bench.b.commands.handle(command, sockets, bench.world.clock.now)

    assert bench.dropped == {"link": 2}
    assert ([udp.closes_at for udp in bench.core.sender.sockets], sorted(bench.core.peers)) == before
    there, back = bench.a.send(bench.b), bench.b.send(bench.a)
    bench.world.run(1)
    assert (bench.b.received, bench.a.received) == (there, back)


@pytest.mark.parametrize(("name", "largest"), [("gre", 2**32 - 1), ("vxlan", 2**24 - 1)])
def test_the_largest_identifier_of_an_encapsulation_is_taken(bench, name, largest):
    bench.b.tell(link.SetPeer(7, 0.0, name, [], Ends(largest)))

    assert bench.core.peers[7].tunnel.ends.identifier == largest
    assert bench.dropped == {}


def test_a_packet_for_a_peer_just_removed_has_nowhere_to_go(bench):
    bench.core.table.find(packets.ip_address(bench.a.inner()).packed)
    bench.b.tell(link.RemovePeer(1))
    bench.b.send(bench.a, 2)
    bench.world.run(1)

    assert bench.dropped == {"no_peer": 2}
    assert len(bench.core.staging) == 0


def test_what_is_staged_for_a_removed_peer_is_forgotten():
    world = World()
    a, b = world.pair()
    world.network.lose = lambda flight: True
    a.send(b, 100)
    world.run(1)
    a.tell(link.RemovePeer(1))

    assert len(a.core.staging) == 0


def test_wiped_keypairs_open_nothing(bench):
    datagram = bench.sealed(bench.packet())
    bench.b.tell(Wipe(1))
    for _ in range(2):
        bench.arrive(datagram)

    assert bench.dropped == {"unknown_index": 2}
    assert bench.core.by_index == {}


def test_forgotten_keypairs_open_nothing_and_others_go_on(bench):
    datagram = bench.sealed(bench.packet())
    (index,) = bench.core.by_index
    bench.b.tell(Forget(1, [index ^ 1]))
    bench.arrive(datagram)
    assert bench.dropped == {}

    bench.b.tell(Forget(1, [index]))
    bench.arrive(datagram)

    assert bench.dropped == {"unknown_index": 1}
    assert bench.core.by_index == {}


def test_counters_of_some_come_alone_and_not_behind_those_of_all():
    world = World()
    node = world.node("a")
    for number in range(1, 101):
        node.tell(link.SetPeer(number, 0.0))
    node.tell(link.AskCounters(1))
    node.tell(link.AskCounters(2, [7, 5, 1000]))
    node.tell(link.AskCounters(3, [1000]))
    world.run(0)

    assert [(each.serial, [row.peer for row in each.peers]) for each in node.reported if each.serial > 1] == [
        (2, [7, 5]),
        (3, []),
    ]
    assert [each.serial for each in node.reported][:2] in ([1, 2], [2, 1])
    assert all(each.is_last for each in node.reported if each.serial > 1)


def test_counters_come_in_pieces_and_for_nobody():
    world = World()
    node = world.node("a")
    for number in range(1, 451):
        node.tell(link.SetPeer(number, 0.0))
    node.tell(link.AskCounters(9))
    lonely = world.node("b")
    lonely.tell(link.AskCounters(3))
    world.run(0)

    whole, rest = divmod(450, PEERS_PER_MESSAGE)
    assert [(each.serial, len(each.peers), each.is_last) for each in node.reported] == [
        *[(9, PEERS_PER_MESSAGE, False)] * whole,
        (9, rest, True),
    ]
    assert lonely.reported == [link.Counters(3, [], {}, is_last=True)]


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("count", [1, 9])
def test_packets_of_a_source_that_was_not_looked_up_lately_are_taken(bench, version, count):
    for _ in range(2):
        sent = bench.a.send(bench.b, count, version=version)
        bench.core.table.remembered.clear()
        bench.world.run(1)

        assert bench.b.received[-count:] == sent


def test_a_peer_heard_on_a_closing_socket_of_another_family_is_still_answered(bench):
    old_v6 = bench.b.sockets[1]
    bench.b.open_sockets()
    bench.world.run(0.1)
    destination = (bench.b.addresses[1], bench.b.port, 0, 0)
    source = (bench.a.addresses[1], bench.a.port, 0, 0)
    old_v6.inbox.append(Flight(source, destination, bench.sealed(bench.packet())))
    bench.world.run(0)
    sent = bench.b.send(bench.a)
    bench.world.run(1)

    assert bench.a.received == sent
    assert bench.dropped == {}


def test_under_load_a_cookie_lets_through_the_address_that_it_was_given_to_alone(bench):
    bench.b.is_agent_busy = True
    holder, message = CookieHolder(bench.b.key.public), b"\1\0\0\0" + bytes(144)
    for port in range(UNDER_LOAD_WAITING):
        bench.arrive(holder.add_macs(message, 0.0), source=("198.51.100.1", 1 + port))
    answers = []
    bench.world.network.lose = lambda flight: bool(answers.append(flight))
    bench.arrive(holder.add_macs(message, 0.0), source=("198.51.100.9", 9))

    (reply,) = answers
    assert reply.destination == ("198.51.100.9", 9)
    holder.consume_reply(CookieReply.parse(reply.datagram), 0.0)
    answered = holder.add_macs(message, 0.0)
    for source in (("198.51.100.9", 9), ("198.51.100.8", 9), ("198.51.100.9", 8)):
        bench.arrive(answered, source=source)

    assert bench.b.drops == {"handshake_under_load": 3}


@pytest.mark.slow
def test_callers_that_wait_are_answered_although_many_call_after_them(bench):
    called = CookieHolder(bench.b.key.public).add_macs(b"\1\0\0\0" + bytes(144), 0.0)
    callers = [(f"198.51.{number >> 8}.{number & 255}", 9) for number in range(CALLERS + 100)]
    for caller in callers:
        bench.arrive(called, source=caller)

    for caller in callers:
        bench.b.tell(Transmit(1, bytes(92), endpoint=caller))

    assert bench.peer.drops == {"no_endpoint": 100}  # those that called first


def test_a_vxlan_network_over_24_bits_is_refused(bench):
    bench.b.tell(link.SetPeer(7, 0.0, "vxlan", [], Ends(2**24)))

    assert 7 not in bench.b.core.peers
    assert bench.b.core.drops["link"] == 1


def test_sockets_that_are_told_again_stay_in_use_and_the_others_are_closed():
    world = World()
    a, b = world.pair()
    world.run(1)
    first, second = a.core.sender.sockets[:2]

    def use(udp):
        a.commands.handle(
            link.Sockets("wireguard", [link.SocketRow(udp.family, a.port)]), [udp.raw], world.clock.now
        )

    use(first)
    assert [udp for udp in a.core.sender.sockets if udp.closes_at == math.inf] == [first]
    use(second)
    use(first)
    world.run(link.REPLACED_TIME + 1)

    assert a.core.sender.sockets == [first]
    sent = a.send(b)
    world.run(1)
    assert b.received == sent


def test_who_could_not_answer_for_its_keys_were_too_old_answers_under_new_ones():
    """A keepalive that is due when there are no keys left is cancelled: otherwise none would ever be sent again."""
    world = World()
    a, b = world.pair()
    a.send(b)
    world.run(1)
    b.send(a)
    world.run(175)
    b.is_agent_busy = a.is_agent_busy = True
    a.send(b)
    world.run(14)  # the keys have expired, and the answer was due
    assert b.peer().keypairs.current.reject_at < world.clock.now
    b.reports.clear()  # so that the other end initiates
    b.is_agent_busy = a.is_agent_busy = False
    since = world.clock.now
    a.send(b)
    world.run(1)
    assert [who for _, who, kind, _ in world.network.sent if kind == "initiation"][-1] == "a"
    a.send(b)
    world.run(11)

    assert len(world.sent("keepalive", "b", since)) == 1


# Timers


def silent_from(world, node):
    """Lose everything for *node* except its handshake messages."""
    world.network.lose = lambda flight: (
        flight.source[0] in node.addresses and flight.kind in {"data", "keepalive"}
    )


def test_a_peer_that_shook_hands_and_then_says_nothing_is_called_again():
    world = World()
    a, b = world.pair()
    silent_from(world, b)
    a.send(b)
    world.run(1)
    assert len(world.sent("initiation")) == 1

    world.run(15)

    assert len(world.sent("initiation", "a")) == 2


def test_silence_counts_from_the_first_packet_that_was_not_answered(bench):
    world, a, b, begin = bench.world, bench.a, bench.b, bench.world.clock.now
    a.send(b)
    world.run(1)
    b.send(a)
    world.run(7)
    silent_from(world, b)
    a.send(b)

    world.run(14.9)
    assert world.sent("initiation", since=begin) == []
    world.run(1.2)
    assert len(world.sent("initiation", "a", begin)) == 1


def test_a_keepalive_counts_from_the_first_packet_that_was_not_answered(bench):
    world, a, b, begin = bench.world, bench.a, bench.b, bench.world.clock.now
    world.run(20)
    a.send(b)
    world.run(1)
    b.send(a)
    world.run(4)
    begin = world.clock.now
    a.send(b)

    world.run(9.9)
    assert world.sent("keepalive", "b", begin) == []
    world.run(0.2)
    assert len(world.sent("keepalive", "b", begin)) == 1


def test_a_persistent_keepalive_goes_when_nothing_else_went_either_way():
    world = World()
    a, b = world.pair(keepalive=5.0)
    world.run(1)
    begin = world.clock.now
    for number in range(20):
        (a if number % 2 else b).send(b if number % 2 else a)
        world.run(1)

    assert world.sent("keepalive", since=begin) == []
    world.run(6)
    assert world.sent("keepalive", since=begin)


def test_the_agent_is_not_told_of_an_endpoint_that_it_set_itself(bench):
    bench.b.reported.clear()
    for port in (1, 2, bench.a.port):
        bench.b.tell(link.SetEndpoint(1, (bench.a.addresses[0], port), "dns"))
    bench.world.run(10)

    assert [each for each in bench.b.reported if isinstance(each, link.Moved)] == []


def test_counters_of_a_tun_tell_of_no_ethernet_addresses(bench):
    bench.b.tell(link.AskCounters(1))
    bench.world.run(0)

    assert [row.learnt_macs for row in bench.b.reported[-1].peers] == [0]


def test_each_packet_that_found_no_room_to_wait_for_the_session_is_counted():
    world = World()
    a, b = world.pair()

    a.send(b, 600, size=1300)
    world.run(1)

    dropped = a.peer().drops["staging_full"]
    assert dropped > 1
    assert len(b.received) == 600 - dropped


def test_packets_of_one_flow_with_a_spoofed_source_are_owed_an_answer_from_when_they_came(bench):
    """The peer is there and has been heard, whatever it sends."""
    whole = packets.tcp(bytes(4000), source="10.244.9.9", destination=bench.b.inner())
    bench.world.run(30)

    bench.arrive(*map(bench.sealed, packets.kernel_segments(*packets.as_super_packet(whole, 992))))

    assert bench.peer.drops["source"] == 5
    assert bench.peer.contact.owed_since == bench.world.clock.now


def test_a_session_is_asked_for_once_while_the_agent_looks_for_it(bench):
    world = World()
    a, b = world.pair()
    world.network.lose = lambda _: True

    for _ in range(5):
        a.send(b)
        world.run(0.01)

    assert a.reported.count(link.SessionWanted(1)) == 1


@pytest.mark.parametrize("missing", [8, 16, 24, 32, 40])
def test_equal_packets_that_claim_more_than_came_are_each_refused(bench, missing):
    bench.world.run(1)
    cut = [bench.packet(number, size=200)[:-missing] for number in range(8)]

    bench.arrive(*map(bench.sealed, cut))

    assert (bench.b.received, bench.dropped) == ([], {"inner_length": 8})
