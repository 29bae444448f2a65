from __future__ import annotations

import socket
import weakref

import pytest

from overlay.encap.encapsulation import Role
from overlay.forwarding.path.discovery import HEEDED_TIME, Discovery
from overlay.forwarding.underlay.udp_socket import UdpSocket, pair

DISCOVER, DISCOVER6 = (0, 10), (41, 23)
WANT, DO, OMIT = 1, 2, 5
ONE, OTHER = object(), object()


class Socket:
    def __init__(self):
        self.options, self.calls = {}, 0

    def setsockopt(self, level, option, value):
        self.options[level, option] = value
        self.calls += 1


def discovery(family=socket.AF_INET, *, learns=True, is_switched=True):
    raw = Socket()
    made = Discovery(raw, family, is_switched=is_switched)
    made.learn(learns)
    return made, raw


@pytest.mark.parametrize(
    ("family", "learns", "learnt"),
    [
        (socket.AF_INET, True, {DISCOVER: DO}),
        (socket.AF_INET, False, {}),
        (socket.AF_INET6, True, {}),
        (socket.AF_INET6, False, {}),
    ],
)
def test_it_rests_by_nobodys_word_once_a_peer_is_probed_and_by_the_kernels_before(family, learns, learnt):
    found, raw = discovery(family, learns=learns)
    assert raw.options == learnt

    found.heed(ONE, 1.0)
    assert raw.options == learnt
    found.omit(ONE, 2.0)

    assert found.omits
    assert raw.options == {DISCOVER if family == socket.AF_INET else DISCOVER6: OMIT}
    found.heed(ONE, 3.0)
    assert not found.omits
    assert set(raw.options.values()) == {DO if learnt else WANT}


def test_while_there_are_packets_for_another_that_is_not_probed_it_rests_by_the_kernels():
    found, raw = discovery()
    found.heed(OTHER, 1.0)

    found.omit(ONE, 1.0 + HEEDED_TIME / 2)
    assert not found.omits
    found.omit(ONE, 1.0 + HEEDED_TIME)

    assert found.omits
    assert raw.options == {DISCOVER: OMIT}


def test_a_peer_that_turns_out_to_answer_probes_leaves_it_resting_for_the_others():
    found, raw = discovery()
    found.heed(OTHER, 1.0)
    found.heed(ONE, 2.0)  # whether it answers probes is not known yet

    found.omit(ONE, 3.0)
    assert not found.omits
    found.omit(OTHER, 4.0)

    assert found.omits
    assert raw.options == {DISCOVER: OMIT}


def test_peers_without_packets_are_forgotten():
    found, _ = discovery()
    for number in range(100):
        peer = type("FakePeer", (), {})()
        found.heed(peer, number * HEEDED_TIME)

    forgotten = weakref.ref(peer)
    del peer
    assert forgotten() is not None
    found.heed(ONE, 100 * HEEDED_TIME)

    assert forgotten() is None


def test_what_is_so_already_costs_no_call():
    found, raw = discovery()
    found.omit(ONE, 1.0)
    before = raw.calls

    for _ in range(3):
        found.omit(ONE, 2.0)
        found.switch(True)
        found.learn(True)

    assert raw.calls == before


def test_around_a_send_it_is_switched_and_rests_as_before():
    found, raw = discovery()
    found.switch(True)
    assert (raw.options, found.omits) == ({DISCOVER: OMIT}, False)

    found.switch(found.omits)

    assert raw.options == {DISCOVER: DO}


def test_a_socket_that_is_the_agents_matter_is_never_touched():
    found, raw = discovery(is_switched=False)

    found.undo()
    found.heed(ONE, 1.0)
    found.omit(ONE, 2.0)
    found.switch(True)

    assert (raw.options, found.omits) == ({}, False)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_socket_that_is_come_back_to_rests_as_the_agent_opened_it(family):
    found, raw = discovery(family)
    found.omit(ONE, 1.0)

    found.undo()

    assert not found.omits
    expected = {DISCOVER: WANT} if family == socket.AF_INET else {DISCOVER6: WANT, (41, 24): 0}
    assert raw.options == expected


def test_what_shares_the_port_rests_by_the_same_word_and_is_not_switched_for_single_sends():
    found, _ = discovery()
    beside = Socket()
    found.rest_with([beside])

    found.learn(True)
    assert beside.options == {DISCOVER: DO}
    found.omit(ONE, 1.0)
    assert beside.options == {DISCOVER: OMIT}
    calls = beside.calls
    found.switch(False)
    found.switch(True)
    assert (beside.options, beside.calls) == ({DISCOVER: OMIT}, calls)
    found.heed(ONE, 2.0)
    assert beside.options == {DISCOVER: DO}


def test_a_socket_for_handshakes_rests_with_the_one_of_its_family_that_has_the_port_with_it():
    raws = [Socket() for _ in range(5)]
    roles = [Role.ALL, Role.ALL, Role.HANDSHAKES, Role.SENDS, Role.HANDSHAKES]
    families = [socket.AF_INET, socket.AF_INET6, socket.AF_INET, socket.AF_INET, socket.AF_INET6]
    opened = [
        UdpSocket(raw, family, role=role) for raw, family, role in zip(raws, families, roles, strict=True)
    ]
    pair(opened)

    opened[0].discovery.learn(True)
    assert [raw.options for raw in raws[1:]] == [{}, {DISCOVER: DO}, {}, {}]
    opened[1].discovery.learn(True)
    assert DISCOVER6 in raws[4].options
    assert raws[3].options == {}


def test_without_a_word_about_learning_it_rests_as_the_system_has_it():
    raw = Socket()
    found = Discovery(raw, socket.AF_INET, is_switched=True)

    found.omit(ONE, 0.5)  # even in the first second of the clock
    assert raw.options == {DISCOVER: OMIT}
    found.heed(ONE, 0.75)

    assert raw.options == {DISCOVER: WANT}
