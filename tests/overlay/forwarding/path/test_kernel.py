"""The path MTU to peers that do not answer probes, as the kernel knows it; whole nodes on a network whose routers
report it.
"""

from __future__ import annotations

import errno
import math
import socket
import struct
from types import SimpleNamespace

import pytest

from overlay.forwarding.path.kernel import LEAST, LOOK_TIME, LOOKS_PER_SECOND, KernelPaths
from overlay.forwarding.peer import WIDE, LivePeer
from overlay.link import messages as link
from overlay.wire.fragments import may_be_cut
from tests import packets
from tests.overlay.wire.test_fragments import reassemble
from tests.overlay.wire.test_mss import mss_of, syn
from tests.sim import CLEAR_PORT, World
from tests.two_nodes.test_mtu import df, forget, free, icmp_mtus, put, talk, udp

LIMIT = 1400  # bytes of an IP packet


@pytest.fixture
def world():
    world = World()
    world.network.tells = True
    return world


def clear(world):
    a, b = world.clear_pair()
    a.set_node(1472)
    b.set_node(1472)
    return a, b


def become_narrow(world, a, b, limit=LIMIT):
    """Make the path narrow, and let *a* learn it from a packet that is lost."""
    world.network.mtu = limit
    a.send_super(b, 4080, 1360)
    world.run(LOOK_TIME * 1.5)
    a.send(b)
    world.run(LOOK_TIME * 1.5)
    forget(a, b)


def told(node):
    node.tell(link.AskCounters(1))
    node.world.run(0.1)
    (counters,) = [report for report in node.reported if isinstance(report, link.Counters)]
    return counters.peers[0].path_mtu


def test_a_peer_in_the_clear_is_sent_what_fits_behind_ip_and_udp(world):
    a, b = clear(world)
    talk(world, a, b, 2, 1432)
    assert (a.peer().path.mtu, told(a)) == (WIDE, 1472)

    a.reported.clear()
    become_narrow(world, a, b, 1380)

    assert a.peer().path.mtu == told(a) == 1380 - 28


def test_over_ipv6_the_headers_outside_are_larger(world):
    a, b = world.node("a"), world.node("b")
    a.know_in_the_clear(b, endpoint=(b.addresses[1], CLEAR_PORT, 0, 0))
    b.known_mtus = a.known_mtus = {b.addresses[1]: LIMIT}

    a.send(b)
    world.run(1)

    assert a.peer().path.mtu == LIMIT - 48


@pytest.mark.parametrize("by_ipv6", [False, True])
def test_a_plain_wireguard_peer_is_sent_what_fits_once_it_is_padded(world, by_ipv6):
    a, b = world.node("a"), world.node("b")
    at = (b.addresses[1], b.port, 0, 0) if by_ipv6 else (b.addresses[0], b.port)
    a.know(b, endpoint=at)
    b.know(a, endpoint=False)
    a.known_mtus = {b.addresses[by_ipv6]: LIMIT}

    a.send(b)
    world.run(1)
    a.send(b)
    world.run(1)

    room = LIMIT - (80 if by_ipv6 else 60)
    assert a.peer().path.mtu == room // 16 * 16
    world.network.mtu = LIMIT
    sent = [df(udp(a, b, a.peer().path.mtu))]
    put(a, *sent)
    world.run(1)
    assert b.received[-1:] == sent


@pytest.mark.parametrize(("known", "is_wide"), [(1500, True), (1499, False)])
def test_the_whole_mtu_of_the_tun_fits_a_plain_wireguard_peer_s_path_although_it_is_no_multiple_of_16(
    world, known, is_wide
):
    a, b = world.node("a"), world.node("b")
    a.know(b, endpoint=(b.addresses[1], b.port, 0, 0))
    b.know(a, endpoint=False)
    a.known_mtus = {b.addresses[1]: known}

    a.send(b)
    world.run(1)

    assert a.peer().path.mtu == (WIDE if is_wide else 1408)


def test_probes_are_believed_more_than_the_kernel():
    world = World(ciphers=[2, 1])
    world.network.tells = True
    a, b = world.pair()
    talk(world, a, b, 5)

    a.known_mtus = {b.addresses[0]: LIMIT}
    talk(world, a, b, 5)

    assert a.peer().path.mtu == WIDE


def test_of_probed_peers_alone_routers_tell_nothing_and_beside_others_they_do():
    world = World(ciphers=[2, 1])
    a, b, c = (world.node(name) for name in "abc")
    for one, other in ((a, b), (b, a), (a, c), (c, a)):
        one.know(other)
    c.ciphers = []
    c.restart_forwarder()
    by_ipv4 = a.sockets[0]
    assert by_ipv4.options[0, 10] == 2  # IP_PMTUDISC_DO

    talk(world, a, b, 5)
    assert (a.peer().path.omits, by_ipv4.options[0, 10]) == (True, 5)  # IP_PMTUDISC_OMIT
    talk(world, a, c, 5)
    assert (a.peer(2).path.omits, by_ipv4.options[0, 10]) == (False, 2)

    talk(world, a, b, 5)
    assert by_ipv4.options[0, 10] == 2
    world.run(60)
    talk(world, a, b, 5)
    assert by_ipv4.options[0, 10] == 5


def test_a_peer_that_answers_its_first_probe_does_not_stop_routers_from_telling_of_another():
    world = World(ciphers=[2, 1])
    a, b, c = (world.node(name) for name in "abc")
    for one, other in ((a, b), (b, a), (a, c), (c, a)):
        one.know(other)
    c.ciphers = []
    c.restart_forwarder()
    for other in (b, c, b):  # small packets: the kernel is not asked about b yet
        a.send(other)
        world.run(1.5)
    assert not a.peer().path.omits

    talk(world, a, b, 5)

    assert a.peer().path.omits
    assert a.sockets[0].options[0, 10] == 2  # IP_PMTUDISC_DO


def test_what_the_kernel_forgets_is_forgotten_here_while_packets_flow(world):
    a, b = clear(world)
    become_narrow(world, a, b)
    assert a.peer().path.mtu < a.mtu

    a.known_mtus.clear()
    a.send(b)
    world.run(1)

    assert a.peer().path.mtu == WIDE


def test_a_peer_is_asked_for_once_a_second_while_packets_flow_and_never_else(world):
    a, b = clear(world)
    for _ in range(100):
        a.send(b)
        world.run(0.1)

    asked = sum(each.questions for each in a.paths)
    world.run(60)

    assert 9 <= asked <= 11
    assert sum(each.questions for each in a.paths) == asked


@pytest.mark.slow
def test_very_many_peers_have_their_turns_more_seldom(world):
    a, b = clear(world)
    count = int(LOOKS_PER_SECOND) * 3
    peers = [a.know_in_the_clear(b, subnets=[f"10.9.{n >> 8}.{n & 255}/32"]) for n in range(count)]

    for peer in peers:
        a.core.liveness.look_at_path(a.peer(peer), world.clock.now)

    due = sorted(a.peer(peer).path.due - world.clock.now for peer in peers)
    assert due[0] >= LOOK_TIME
    assert sum(at < 2 for at in due) <= LOOKS_PER_SECOND * 2
    assert due[-1] >= 2.9


def test_a_send_that_the_kernel_refuses_as_too_large_is_the_reason_to_ask_at_once(world):
    a, b = clear(world)
    a.send(b)
    world.run(0.1)
    a.known_mtus = {b.addresses[0]: LIMIT}
    a.clear_sockets[0].errors.append(errno.EMSGSIZE)

    a.send(b)
    world.run(0.1)
    a.send(b)
    world.run(0.1)

    assert a.peer().path.mtu == LIMIT - 28


def test_another_endpoint_has_another_path(world):
    a, b = clear(world)
    become_narrow(world, a, b)

    a.tell(link.SetEndpoint(1, ("203.0.113.9", CLEAR_PORT), "dns"))
    a.send(b)
    world.run(0.1)

    assert a.peer().path.mtu == WIDE


def test_without_sockets_to_ask_by_nothing_is_held_back(world):
    a, b = clear(world)
    become_narrow(world, a, b)

    a.tell(link.SetNode(1472, False, []))
    a.send(b)
    world.run(0.1)

    assert a.peer().path.mtu == WIDE


@pytest.mark.parametrize("families", [[2], [2, 10, 10]])
def test_a_message_with_other_sockets_than_it_says_is_refused(world, families):
    a, _ = clear(world)

    a.tell(link.SetNode(1472, False, [], families=families), a.paths)

    assert a.drops == {"link": 1}
    assert not any(each.is_closed for each in a.paths)


@pytest.mark.parametrize("is_flooded", [False, True])
@pytest.mark.parametrize(("known", "is_wide"), [(1500, True), (1458, True), (1457, False), (1300, False)])
def test_a_tap_in_the_clear_is_sent_what_fits_behind_the_headers_of_its_frames(known, is_wide, is_flooded):
    world = World(is_tap=True)
    world.network.tells = True
    a, b = world.clear_pair(encapsulation="vxlan")
    a.set_node(1408)
    b.set_node(1408)
    for node, other in ((a, b), (b, a)):
        node.send_frame(other.mac, packets.udp(b"x"))
        world.run(2)

    a.known_mtus = {b.addresses[0]: known}
    a.send_frame(b"\xff" * 6 if is_flooded else b.mac, packets.udp(b"x"))
    world.run(1)
    assert a.peer().path.mtu == (WIDE if is_wide else known - 50 + 16)
    a.send_frame(b.mac, syn(1460, source=a.inner(), destination=b.inner()))
    world.run(0.1)

    most = 1408 if is_wide else known - 50
    assert mss_of(b.received[-1][14:]) == most - 40
    assert told(a) == most


# What does not fit


@pytest.mark.parametrize("version", [4, 6])
def test_the_sender_of_a_packet_that_must_not_be_cut_is_told_in_the_clear_too(world, version):
    a, b = clear(world)
    become_narrow(world, a, b)
    packet = udp(a, b, LIMIT - 28 + 1, version)

    put(a, df(packet) if version == 4 else packet)
    world.run(1)

    assert icmp_mtus(a, version) == [LIMIT - 28]
    assert b.received == []


def test_what_just_fits_passes_alone_and_in_super_packets(world):
    a, b = clear(world)
    become_narrow(world, a, b)

    sent = [df(udp(a, b, LIMIT - 28))]
    put(a, *sent)
    sent += a.send_super(b, 20_000, LIMIT - 28 - 40)
    world.run(1)

    assert b.received == sent
    assert icmp_mtus(a) == []


def test_the_sender_of_a_super_packet_whose_segments_do_not_fit_is_told_in_the_clear_too(world):
    a, b = clear(world)
    become_narrow(world, a, b)

    a.send_super(b, 20_000, LIMIT - 28 - 40 + 1)
    world.run(1)

    assert icmp_mtus(a) == [LIMIT - 28]
    assert b.received == []


def test_ipv4_without_df_is_cut_in_fragments_in_the_clear_too(world):
    a, b = clear(world)
    become_narrow(world, a, b)
    sent = free(udp(a, b, 1470))

    put(a, sent)
    world.run(1)

    assert len(b.received) == 2
    assert all(may_be_cut(piece) for piece in b.received)
    assert reassemble(b.received) == sent[20:]


def test_segments_without_df_are_cut_in_fragments_in_the_clear_too(world):
    a, b = clear(world)
    become_narrow(world, a, b)
    whole = packets.udp(bytes(2800), source=a.inner(), destination=b.inner())
    packet, virtio = packets.as_super_packet(free(whole), 1400)

    a.tun.outgoing.append(virtio + packet)
    world.run(1)

    expected = [segment[20:] for segment in packets.kernel_segments(packet, virtio)]
    assert [reassemble(b.received[:2]), reassemble(b.received[2:])] == expected


def test_ipv6_up_to_1280_passes_a_path_that_takes_less_in_the_clear_too(world):
    a, b = clear(world)
    become_narrow(world, a, b, 1200)
    sent = udp(a, b, 1280, version=6)

    put(a, sent, udp(a, b, 1281, version=6))
    world.run(1)

    assert b.received == [sent]
    assert icmp_mtus(a, version=6) == [1280]


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("is_partial", [False, True])
def test_syns_announce_no_more_than_fits_when_they_leave_in_the_clear(world, version, is_partial):
    a, b = clear(world)
    become_narrow(world, a, b)
    packet = syn(1460, version, source=a.inner(version), destination=b.inner(version))
    if is_partial:
        whole, virtio = packets.as_super_packet(packet, 1000)
        a.tun.outgoing.append(virtio[:1] + b"\0" + struct.pack("<H", 0) + b"\0\0" + virtio[6:] + whole)
    else:
        put(a, packet)
    world.run(1)

    (there,) = b.received
    assert mss_of(there) == LIMIT - 28 - (40 if version == 4 else 60)
    assert packets.is_l4_checksum_right(there)


def test_syns_announce_no_more_than_fits_when_they_come_in_the_clear(world):
    a, b = clear(world)
    b.known_mtus = {a.addresses[0]: LIMIT}
    b.send(a)
    world.run(1)

    put(a, syn(1460, source=a.inner(), destination=b.inner()))
    world.run(1)

    assert mss_of(b.received[-1]) == LIMIT - 28 - 40


# One look


class Asked:
    """A socket that asks the kernel, which knows one MTU for all addresses; 0 means none."""

    def __init__(self, mtu):
        self.mtu, self.questions, self.is_closed = mtu, [], False

    def mtu_to(self, endpoint):
        self.questions.append(endpoint)
        return self.mtu

    def close(self):
        self.is_closed = True


def looking(mtu, *, families=(socket.AF_INET, socket.AF_INET6)):
    """Return paths of payloads of 1420 bytes, and the sockets that they ask with."""
    paths, sockets = KernelPaths(1), [Asked(mtu) for _ in families]
    paths.use(families, sockets, 1420)
    return paths, sockets


def peer_at(endpoint=("192.0.2.1", 1)):
    """Return a peer whose socket records which mode it should rest in."""
    peer, noted = LivePeer(1), []
    peer.endpoint = endpoint
    discovery = SimpleNamespace(
        omit=lambda *given: noted.append(("omit", *given)), heed=lambda *given: noted.append(("heed", *given))
    )
    peer.local.socket = SimpleNamespace(discovery=discovery)
    return peer, noted


@pytest.mark.parametrize(
    ("answers", "has_heard", "is_searched", "omits"),
    [
        (True, True, False, True),
        (True, True, True, True),
        (False, True, True, False),  # under this keypair, it said that it does not
        (False, False, True, True),
        (False, False, False, False),
        (None, None, True, False),  # no units
    ],
)
def test_nobodys_word_is_taken_for_a_peer_that_answers_probes_or_did_so_last(
    answers, has_heard, is_searched, omits
):
    paths, _ = looking(1300)
    peer, noted = peer_at()
    bulk = None if answers is None else SimpleNamespace(answers_probes=answers, has_heard=has_heard)
    peer.keypairs.current = SimpleNamespace(bulk=bulk)
    peer.path.search = object() if is_searched else None
    peer.path.is_known = True

    paths.look(peer, 5.0)

    assert noted == [("omit" if omits else "heed", peer, 5.0)]
    assert (peer.path.omits, peer.path.is_known) == (omits, not omits)
    assert peer.path.mtu == (WIDE if omits else 1232)


def test_a_peer_without_a_session_is_looked_at_by_the_kernels_word():
    paths, (by_ipv4, by_ipv6) = looking(1300)
    peer, noted = peer_at()

    paths.look(peer, 5.0)

    assert noted == [("heed", peer, 5.0)]
    assert (by_ipv4.questions, by_ipv6.questions) == ([("192.0.2.1", 1)], [])
    assert (peer.path.is_known, peer.path.mtu, peer.path.due) == (True, 1232, 5.0 + LOOK_TIME)


def test_a_peer_without_an_endpoint_or_a_socket_has_no_path():
    paths, (by_ipv4, _) = looking(1300)
    peer, _ = peer_at(None)
    peer.local.socket, peer.path.is_known = None, True

    paths.look(peer, 5.0)

    assert (peer.path.is_known, by_ipv4.questions) == (False, [])


@pytest.mark.parametrize("was_known", [False, True])
def test_without_a_route_what_was_known_stays(was_known):
    paths, _ = looking(0)
    peer, _ = peer_at()
    peer.path.is_known, peer.path.mtu = was_known, 1300

    paths.look(peer, 5.0)

    assert (peer.path.is_known, peer.path.mtu) == (was_known, 1300)


def test_without_a_socket_of_its_family_nothing_is_known_of_a_peer():
    paths, _ = looking(1300, families=[socket.AF_INET])
    peer, _ = peer_at(("2001:db8::1", 1, 0, 0))
    peer.path.is_known, peer.path.mtu = True, 1300

    paths.look(peer, 5.0)

    assert (peer.path.is_known, peer.path.mtu) == (False, WIDE)


@pytest.mark.parametrize("known", [1, LEAST - 1, LEAST])
def test_no_path_is_believed_to_take_less_than_any_host_must(known):
    paths, _ = looking(known)
    peer, _ = peer_at()

    paths.look(peer, 5.0)

    assert peer.path.mtu == (LEAST - 60) // 16 * 16


def test_other_sockets_take_the_place_of_those_before_which_are_closed():
    paths, before = looking(1300)
    after = [Asked(1400)]

    paths.use([socket.AF_INET], after, 9000)
    peer, _ = peer_at()
    paths.look(peer, 5.0)

    assert [each.is_closed for each in before] == [True, True]
    assert (after[0].is_closed, peer.path.mtu) == (False, 1328)


def test_with_many_peers_each_look_moves_the_next_one_a_little_on():
    paths, _ = looking(1300)
    peer, _ = peer_at()

    due = []
    for _ in range(3000):
        paths.look(peer, 5.0)
        due.append(peer.path.due)
    paths.look(peer, 100.0)

    assert due[:999] == [6.0] * 999
    assert due[-1] == pytest.approx(5.0 + 3000 / LOOKS_PER_SECOND)
    assert peer.path.due == 101.0


def test_a_look_that_is_wanted_soon_is_due_with_the_next_packet():
    peer, _ = peer_at()
    peer.path.due = math.inf

    KernelPaths.look_soon(peer, 5.0)

    assert peer.path.due == 0.0
