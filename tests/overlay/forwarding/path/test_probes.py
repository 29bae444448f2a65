from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

from overlay.errors import PacketError
from overlay.forwarding.path.probes import PROBES_AT_ONCE, Probes
from overlay.forwarding.peer import WIDE, LivePeer
from overlay.session.constants import Timing
from overlay.wire import control
from overlay.wire.control import Probe, Probed


def keypair(peer, *, answers=True):
    bulk = SimpleNamespace(has_heard=True, answers_probes=answers, offer=lambda now: None)
    return SimpleNamespace(peer=peer, bulk=bulk)


class Sent:
    """The probes that were sent, by a host whose device accepts *most* bytes."""

    def __init__(self, most=math.inf):
        self.payloads, self.most = [], most

    def __call__(self, peer, keypair, payload):
        self.payloads.append(payload)
        return len(payload) <= self.most


@pytest.fixture
def probes():
    return Probes(Timing(), 1420)


@pytest.fixture
def peer(probes):
    peer = LivePeer(1)
    probes.due(peer, 5.0)
    return peer


def refusal(act, *arguments):
    with pytest.raises(PacketError) as raised:
        act(*arguments)
    return raised.value.reason


def test_a_probe_is_filled_to_its_size(probes, peer):
    sent = Sent()

    due = probes.turn(peer, keypair(peer), 5.0, sent)

    assert [len(payload) for payload in sent.payloads] == [1420]
    assert type(control.parse(sent.payloads[0])) is Probe
    assert due > 5.0


@pytest.mark.parametrize("answers", [None, False])
def test_nobody_is_probed_who_has_not_said_that_it_answers(probes, peer, answers):
    sent = Sent()
    under = None if answers is None else keypair(peer, answers=False)

    assert probes.turn(peer, under, 5.0, sent) == math.inf
    assert sent.payloads == []


def test_hello_is_said_under_a_new_keypair_while_packets_flow(probes, peer):
    sent, under = Sent(), keypair(peer, answers=False)
    under.bulk.has_heard, under.bulk.offer = False, lambda now: b"hello"

    again = probes.turn(peer, under, 5.0, sent)
    probes.turn(peer, under, again, sent)

    assert sent.payloads == [b"hello"]


def test_an_answer_is_taken_once(probes, peer):
    sent = Sent()
    probes.turn(peer, keypair(peer), 5.0, sent)
    answer = Probed(control.parse(sent.payloads[0]).identifier)

    assert probes.take(answer, peer, 5.1) == 5.1
    assert refusal(probes.take, answer, peer, 5.2) == "probed_unexpected"


def test_an_answer_before_any_probe_is_refused(probes):
    assert refusal(probes.take, Probed(1), LivePeer(2), 5.0) == "probed_unexpected"


def test_a_device_that_takes_no_probe_ends_the_search(probes, peer):
    assert probes.turn(peer, keypair(peer), 5.0, Sent(1280)) == math.inf
    assert peer.path.mtu == WIDE


def test_another_mtu_of_the_tun_begins_a_search(probes, peer):
    sent = Sent()
    probes.turn(peer, keypair(peer), 5.0, sent)

    probes.set_mtu(8920)
    probes.restart(peer, 6.0)
    probes.restart(LivePeer(2), 6.0)
    peer.traffic.tx_packets += 1
    probes.turn(peer, keypair(peer), 6.0, sent)

    assert len(sent.payloads[-1]) == 8920


def test_a_probe_is_answered_with_its_identifier_at_a_bounded_rate(probes, peer):
    for number in range(PROBES_AT_ONCE):
        assert control.parse(probes.answer(Probe(number), keypair(peer), 0.0)) == Probed(number)

    assert refusal(probes.answer, Probe(1), keypair(peer), 0.0) == "probe_rate"
    assert probes.answer(Probe(1), keypair(LivePeer(2)), 0.0)


def test_a_peer_that_has_not_said_hello_is_said_it_and_looked_at_again_later(probes, peer):
    said, under = [], keypair(peer)
    under.bulk.has_heard, under.bulk.offer = False, lambda now: f"hello at {now}".encode()

    due = probes.turn(peer, under, 5.0, lambda *sent: said.append(sent) or True)

    assert said == [(peer, under, b"hello at 5.0")]
    assert due == 5.0 + Timing().path_probe_time


def test_probes_go_to_their_peer_under_its_keypair(probes, peer):
    sent, under = [], keypair(peer)

    probes.turn(peer, under, 5.0, lambda *given: sent.append(given[:2]) or True)

    assert sent == [(peer, under)]


def test_packets_that_did_not_fit_are_traffic(probes, peer):
    under = keypair(peer)
    under.bulk.has_heard, under.bulk.offer = False, lambda now: b"hello"
    sent = Sent()
    probes.turn(peer, under, 5.0, sent)
    probes.turn(peer, under, 6.0, sent)

    peer.drops["path_mtu"] += 1
    probes.turn(peer, under, 7.0, sent)
    peer.traffic.tx_packets, peer.drops["path_mtu"] = peer.traffic.tx_packets + 1, peer.drops["path_mtu"] + 1
    probes.turn(peer, under, 8.0, sent)

    assert sent.payloads == [b"hello"] * 3


def test_what_a_narrow_path_takes_is_what_the_packet_path_sends(probes, peer):
    sent, now = Sent(), 5.0
    for _ in range(200):
        sent.payloads.clear()
        due = probes.turn(peer, keypair(peer), now, sent)
        for payload in sent.payloads:
            if len(payload) <= 1300:
                probes.take(Probed(control.parse(payload).identifier), peer, now)
        if peer.path.search.size < peer.path.search.most:
            break
        now = max(due, now + 0.5)
        peer.traffic.tx_packets += 1

    assert peer.path.mtu == peer.path.search.size <= 1300


def test_a_peer_without_keypair_or_path_is_not_probed(probes):
    assert probes.turn(LivePeer(2), keypair(LivePeer(2)), 5.0, Sent()) == math.inf
    plain = SimpleNamespace(peer=LivePeer(3), bulk=None)
    probes.due(plain.peer, 5.0)
    assert probes.turn(plain.peer, plain, 5.0, Sent()) == math.inf
    assert probes.turn(plain.peer, None, 5.0, Sent()) == math.inf


def test_a_search_goes_by_the_times_it_was_given():
    probes, peer = Probes(Timing(path_probe_time=77.0), 1420), LivePeer(1)
    probes.due(peer, 5.0)

    assert probes.turn(peer, keypair(peer), 5.0, Sent()) < 5.0 + 77.0 + 1
    assert peer.path.search._timing.path_probe_time == 77.0


def test_a_peer_that_was_sent_one_packet_is_said_hello(probes, peer):
    sent, under = Sent(), keypair(peer)
    under.bulk.has_heard, under.bulk.offer = False, lambda now: b"hello"
    peer.traffic.tx_packets = 1

    probes.turn(peer, under, 5.0, sent)

    assert sent.payloads == [b"hello"]


def test_with_the_first_turn_the_kernels_word_counts_no_more_and_its_path_is_looked_at_at_once(probes, peer):
    peer.path.due = 99.0

    probes.turn(peer, keypair(peer), 5.0, Sent())
    assert (peer.path.omits, peer.path.due) == (True, 0.0)
    peer.path.due = 99.0
    probes.turn(peer, keypair(peer), 6.0, Sent())

    assert (peer.path.omits, peer.path.due) == (True, 99.0)
