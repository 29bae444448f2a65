from __future__ import annotations

from types import SimpleNamespace

import pytest

from overlay.forwarding.clear.neighbours import ANSWERS_BURST, Neighbours
from overlay.wire.ethernet import ARP
from peers.mac import derived_mac
from tests import packets
from tests.network import Flight
from tests.overlay.wire import test_neighbours as wire
from tests.sim import CLEAR_PORT, VNI, World

HEADER = b"\x08\0\0\0" + VNI.to_bytes(3, "big") + b"\0"
A, B = derived_mac("a"), derived_mac("b")


@pytest.fixture
def world():
    return World()


@pytest.fixture
def pair(world):
    a, b = world.clear_pair(encapsulation="vxlan")
    b.core.sender.sockets.clear()  # returned packets are collected, not forwarded
    b.heard = []
    for each in b.clear_sockets:
        each.inbox = b.heard
    return a, b


def ask(world, a, b, frame, *, header=HEADER, count=1):
    """Send *frame* from b's address, and return the frames that come back."""
    b.heard.clear()
    for _ in range(count):
        world.network.send(Flight((b.addresses[0], 50123), (a.addresses[0], CLEAR_PORT), header + frame))
    world.run(1)
    assert not a.received
    assert all(flight.datagram.startswith(HEADER) for flight in b.heard)
    return [flight.datagram[8:] for flight in b.heard]


def arp(source, target, *, asked=wire.BROADCAST, operation=1):
    addresses = [bytes(map(int, each.split("."))) for each in (source, target)]
    body = ARP.pack(1, 0x0800, 6, 4, operation, B, addresses[0], bytes(6), addresses[1])
    return asked + B + b"\x08\x06" + body


@pytest.mark.parametrize("target", ["10.244.1.0", "10.244.1.200"])
@pytest.mark.parametrize("asked", [wire.BROADCAST, A])
def test_arp_for_an_own_address_or_one_behind_is_answered_with_our_mac(world, pair, target, asked):
    a, b = pair

    answer = ask(world, a, b, arp(b.inner(), target, asked=asked))

    assert [frame[:14] for frame in answer] == [B + A + b"\x08\x06"]
    *_, operation, mac, address, _, _ = ARP.unpack(answer[0][14:])
    assert (operation, mac, ".".join(map(str, address))) == (2, A, target)
    assert not a.drops


@pytest.mark.parametrize("source", ["fd00:244:2::1", "fe80::5"])
def test_solicitation_is_answered_whether_from_the_overlay_or_from_the_link(world, pair, source):
    a, b = pair

    answer = ask(world, a, b, wire.solicitation(source, "fd00:244:1::9"))

    assert [frame[:14] for frame in answer] == [wire.ASKING + A + b"\x86\xdd"]
    assert packets.is_l4_checksum_right(answer[0][14:])
    assert answer[0][-6:] == A


@pytest.mark.parametrize(
    ("frame", "header"),
    [
        (arp("10.244.2.1", "10.244.2.9"), HEADER),  # its own
        (arp("10.244.2.1", "10.9.9.9"), HEADER),  # nobody's
        (arp("10.244.1.5", "10.244.1.1"), HEADER),  # from one of our own addresses
        (arp("10.9.9.9", "10.244.1.1"), HEADER),  # from nobody's
        (arp("10.244.2.1", "10.244.1.1", asked=B), HEADER),
        (arp("10.244.2.1", "10.244.1.1", operation=2), HEADER),
        (arp("10.244.2.1", "10.244.1.1"), HEADER[:4] + b"\0\0\x63\0"),
        (wire.solicitation("fd00:244:9::1", "fd00:244:1::9"), HEADER),
        (wire.solicitation("fe80::5", "fe80::6"), HEADER),
    ],
)
def test_other_questions_are_not_answered_and_counted(world, pair, frame, header):
    a, b = pair

    assert ask(world, a, b, frame, header=header) == []
    assert a.peer().drops == {"neighbour": 1}


def test_answers_to_one_peer_are_limited(world, pair):
    a, b = pair

    answers = ask(world, a, b, arp(b.inner(), "10.244.1.0"), count=1000)

    assert len(answers) < 300
    assert a.peer().drops == {"neighbour": 1000 - len(answers)}


def test_a_question_to_a_group_is_answered_and_to_a_single_address_of_another_is_not(world, pair):
    a, b = pair
    group, single = bytes.fromhex("0100deadbeef"), bytes.fromhex("0001deadbeef")

    assert len(ask(world, a, b, arp(b.inner(), "10.244.1.0", asked=group))) == 1
    assert ask(world, a, b, arp(b.inner(), "10.244.1.0", asked=single)) == []


def test_a_peer_that_asks_for_ever_costs_no_other_its_answers(world):
    a, b, c = (world.node(name) for name in "abc")
    for other in (b, c):
        a.know_in_the_clear(other, encapsulation="vxlan")
    answered = []
    world.network.lose = lambda flight: (
        flight.source[0] == a.addresses[0] and answered.append(flight.destination)
    )
    for other, count in ((b, 1000), (c, 1)):
        for _ in range(count):
            frame = HEADER + arp(other.inner(), "10.244.1.0")
            world.network.send(Flight((other.addresses[0], 50123), (a.addresses[0], CLEAR_PORT), frame))
        world.run(0.05)

    assert c.addresses[0] in {host for host, *_ in answered}


def test_one_peer_s_questions_do_not_cost_another_its_answers():
    peers = [
        SimpleNamespace(
            number=number, tunnel=SimpleNamespace(ends=SimpleNamespace(identifier=VNI, own_mac=A))
        )
        for number in (1, 2, 258)
    ]
    answered = []
    core = SimpleNamespace(
        table=SimpleNamespace(is_own=lambda target: True, peer_of=lambda source: peers[source[0]]),
        sender=SimpleNamespace(send_message=lambda peer, answer: answered.append(peer.number)),
    )
    frames = SimpleNamespace(
        question=lambda payload: (VNI, SimpleNamespace(asked=A, source=payload, target=b"")),
        answer=lambda question, ends: b"",
    )
    neighbours = Neighbours(core)

    for _ in range(int(ANSWERS_BURST) + 1):
        neighbours.answer(frames, peers, bytes(4), 0.0)

    assert not neighbours.answer(frames, peers, bytes(4), 0.0)
    assert neighbours.answer(frames, peers, b"\1\0\0\0", 0.0)
    assert neighbours.answer(frames, peers, b"\2\0\0\0", 0.0)
    assert [answered.count(peer.number) for peer in peers] == [ANSWERS_BURST, 1, 1]
