"""Work for all peers is done in slices between packets: whole nodes in memory, whose turns have time
for a few steps.
"""

from __future__ import annotations

import pytest

from overlay.forwarding.counters import PEERS_PER_MESSAGE
from overlay.link import messages as link
from overlay.session.outputs import InstallKeypair
from tests import packets
from tests.sim import World

CROWD, STEPS = 300, 4
KEEPALIVE = 20.0
STATION = bytes([2, 0, 0, 0, 9, 9])


class Crowded:
    """Two nodes with a session, one of which has many more peers, all with sessions that no handshake made."""

    def __init__(self, *, is_tap=False):
        self.world = World(is_tap=is_tap)
        self.a, self.b = self.world.node("a"), self.world.node("b")
        for one, other in ((self.a, self.b), (self.b, self.a)):
            one.know(other, macs=[other.mac] if is_tap else [])
        self.send()
        self.world.run(1)
        now = self.world.clock.now
        for number in range(2, CROWD + 2):
            self.a.tell(link.SetPeer(number, 0.0))
            at = (f"198.51.{100 + number // 250}.{number % 250}", 51820)
            key = bytes([number % 256]) * 32
            self.a.tell(InstallKeypair(number, number, number, key, key, True, now, now, at))
        self.world.run(1)
        self.a.steps = STEPS
        self.b.received.clear()

    def send(self):
        if self.world.is_tap:
            self.a.send_frame(self.b.mac, packets.udp(b"x"))
        else:
            self.a.send(self.b)

    def crowd(self):
        return [self.a.peer(number) for number in range(2, CROWD + 2)]

    def turn_by_turn(self, is_done):
        """Send a packet in each turn of a until *is_done*; return the number of turns, and of packets that left."""
        turns, before = 0, self.a.peer().traffic.tx_packets
        while not is_done():
            self.send()
            self.a.turn()
            turns += 1
            assert turns < 2 * CROWD
        return turns, self.a.peer().traffic.tx_packets - before


@pytest.fixture
def crowded():
    return Crowded()


def test_packets_go_between_the_pieces_of_counters(crowded):
    a = crowded.a
    a.tell(link.AskCounters(1))

    turns, left = crowded.turn_by_turn(
        lambda: any(isinstance(each, link.Counters) and each.is_last for each in a.reported)
    )

    assert turns >= CROWD / PEERS_PER_MESSAGE / STEPS
    assert left == turns
    counters = [report for report in a.reported if isinstance(report, link.Counters)]
    told = [row.peer for report in counters for row in report.peers]
    assert sorted(told) == [*range(1, CROWD + 2)]


def test_packets_go_between_the_keepalives_that_tell_of_new_sockets(crowded):
    a, before = crowded.a, {peer.number: peer.traffic.tx_bytes for peer in crowded.crowd()}
    a.open_sockets()

    def are_told():
        return all(peer.traffic.tx_bytes > before[peer.number] for peer in crowded.crowd())

    turns, left = crowded.turn_by_turn(are_told)

    assert turns >= CROWD / STEPS
    assert left == turns
    assert all(peer.local.socket in a.core.sender.sockets[2:] for peer in crowded.crowd())


def test_a_peer_whose_turn_has_not_come_is_sent_to_from_the_new_socket(crowded):
    a = crowded.a
    last = max(a.core.peers.values(), key=lambda peer: peer.number)
    a.port = 4500
    a.open_sockets()
    a.route([("10.9.0.0/16", last.number)])

    a.send(crowded.b, destination="10.9.0.1")
    a.turn()

    assert last.local.socket.closes_at > crowded.world.clock.now + 1000


def test_a_peer_heard_at_the_new_socket_before_its_turn_keeps_where_it_was_heard(crowded):
    a, b, world = crowded.a, crowded.b, crowded.world
    peer = a.peer()
    a.core.peers[1] = a.core.peers.pop(1)  # the last to have its turn
    a.port = 4500
    a.open_sockets()
    b.tell(link.SetEndpoint(1, (a.addresses[0], 4500), "configuration"))
    b.send(a)
    b.turn()
    world.network.deliver()
    a.turn()
    heard = peer.local.received_source
    assert a.core.jobs.has("sockets wireguard")

    world.run(1)

    assert heard is not None
    assert peer.local.received_source is heard


def test_packets_go_between_keepalives_that_are_due_together(crowded):
    a, world = crowded.a, crowded.world
    a.steps = CROWD * 2
    for peer in crowded.crowd():
        a.tell(link.SetPeer(peer.number, KEEPALIVE))
    world.run(KEEPALIVE / 2)
    a.steps = STEPS
    before = {peer.number: peer.traffic.tx_bytes for peer in crowded.crowd()}
    world.sleep(KEEPALIVE / 2 + 0.1)

    turns, left = crowded.turn_by_turn(
        lambda: all(peer.traffic.tx_bytes > before[peer.number] for peer in crowded.crowd())
    )

    assert turns >= CROWD / STEPS
    assert left == turns


def test_packets_go_while_sources_are_chosen_anew(crowded):
    a = crowded.a
    for peer in crowded.crowd():
        peer.local.received_source = object()
    a.tell(link.RenewSources())

    turns, left = crowded.turn_by_turn(
        lambda: all(peer.local.received_source is None for peer in crowded.crowd())
    )

    assert turns >= CROWD / STEPS
    assert left == turns


def test_sources_that_change_again_and_again_are_chosen_anew_for_every_peer(crowded):
    a, world = crowded.a, crowded.world
    for peer in crowded.crowd():
        peer.local.received_source = object()
    for _ in range(CROWD):
        a.tell(link.RenewSources())
        a.turn()

    assert all(peer.local.received_source is None for peer in crowded.crowd())
    world.run(1)
    assert not a.core.jobs.is_ready()


def test_packets_go_between_the_copies_of_a_frame_for_everybody():
    crowded = Crowded(is_tap=True)
    a, before = crowded.a, {peer.number: peer.traffic.tx_packets for peer in crowded.crowd()}
    frame = a.send_frame(b"\xff" * 6, packets.udp(b"for everybody"))

    turns, left = crowded.turn_by_turn(
        lambda: all(peer.traffic.tx_packets > before[peer.number] for peer in crowded.crowd())
    )

    assert turns >= CROWD / STEPS
    assert left == turns + 1
    crowded.world.run(1)
    assert sum(frame == each for each in crowded.b.received) == 1


def test_frames_for_everybody_arrive_in_their_order():
    crowded = Crowded(is_tap=True)
    sent = [
        crowded.a.send_frame(b"\xff" * 6, packets.udp(str(number).encode()), source=STATION)
        for number in range(5)
    ]

    crowded.world.run(1)

    assert [each for each in crowded.b.received if each in sent] == sent


def test_a_peer_removed_while_a_frame_for_everybody_is_sent_gets_none():
    crowded = Crowded(is_tap=True)
    crowded.a.send_frame(b"\xff" * 6, packets.udp(b"for everybody"))
    crowded.a.turn()
    gone = crowded.crowd()[-1]
    crowded.a.tell(link.RemovePeer(gone.number))

    crowded.world.run(1)

    assert gone.traffic.tx_packets == 0


def test_counters_wait_while_the_agent_has_not_read_what_it_was_told(crowded):
    a, world = crowded.a, crowded.world
    a.steps, a.is_agent_busy, a.link_has_room = CROWD, True, False
    a.tell(link.AskCounters(1))

    a.turn()
    assert not a.reports
    a.is_agent_busy, a.link_has_room = False, True
    world.run(1)

    assert a.reported[-1].is_last
