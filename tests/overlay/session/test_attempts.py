"""Peers that nobody waits for are called at a limited rate; those that packets wait for are not limited."""

from __future__ import annotations

import itertools

import pytest

from overlay.crypto.keys import PrivateKey
from overlay.session.attempts import Attempt, Pace
from overlay.session.constants import GREETINGS_PER_SECOND, Timing
from overlay.session.outputs import GiveUp, Retrying, Transmit
from overlay.session.sessions import Sessions
from tests.overlay.session.pair import START, seeded

TIMING = Timing(rekey_timeout=0.5, rekey_jitter=0.05, rekey_attempt_time=9.0)  # a tenth, so that few are many
WAIT = TIMING.rekey_timeout + TIMING.rekey_jitter
MANY = 2 * round(GREETINGS_PER_SECOND * WAIT)  # have their turn half as often as one alone


class Calls:
    """A node that greets *count* peers, none of which answers."""

    def __init__(self, count):
        self.sessions = Sessions(
            PrivateKey(bytes(range(32))),
            entropy=seeded("calls"),
            wall_ns=lambda: 1_700_000_000 * 10**9,
            constants=TIMING,
        )
        self.now, self.calls, self.given_up = START, {number: [] for number in range(count)}, set()
        for number in self.calls:
            self.sessions.add_peer(number, PrivateKey((number << 8 | 1).to_bytes(32, "little")).public)
            self._note(self.sessions.want(number, START, is_greeting=True))

    def advance(self, seconds):
        ends = self.now + seconds
        while (due := self.sessions.next_deadline()) <= ends:
            self.now = max(self.now, due)
            self._note(self.sessions.handle_deadline(self.now))
        self.now = ends

    def _note(self, outputs):
        for each in outputs:
            match each:
                case Transmit():
                    self.calls[each.peer].append(self.now)
                case GiveUp():
                    self.given_up.add(each.peer)


def test_many_silent_peers_are_called_again_in_turn_and_no_faster_than_the_pace():
    node = Calls(MANY)

    node.advance(4)

    again = sorted(at for calls in node.calls.values() for at in calls[1:])
    assert min(then - now for now, then in itertools.pairwise(again)) > 0.99 / GREETINGS_PER_SECOND
    assert len(again) > 0.9 * GREETINGS_PER_SECOND * (4 - WAIT)
    turns = [len(calls) for calls in node.calls.values()]
    assert max(turns) - min(turns) <= 1


@pytest.mark.slow
def test_many_silent_peers_are_given_up_though_their_turns_are_rare():
    node = Calls(MANY)

    node.advance(TIMING.longest_attempt + 2 * MANY / GREETINGS_PER_SECOND)

    assert node.given_up == set(node.calls)
    assert max(len(calls) for calls in node.calls.values()) < TIMING.max_retries


def test_few_silent_peers_are_called_as_often_as_for_a_packet():
    node = Calls(3)

    node.advance(2 * TIMING.rekey_attempt_time)

    assert {len(calls) for calls in node.calls.values()} == {TIMING.max_retries + 1}
    assert node.given_up == {0, 1, 2}


@pytest.mark.slow
def test_a_peer_that_a_packet_waits_for_is_called_as_if_there_were_no_others():
    node = Calls(2 * MANY)
    node.advance(1.0)
    waiting = max(node.calls)
    before = len(node.calls[waiting])

    node._note(node.sessions.want(waiting, node.now))
    node.advance(5 * WAIT)

    assert len(node.calls[waiting]) - before >= 5


def test_who_is_hurried_is_called_no_sooner_than_the_protocol_allows():
    node = Calls(2 * MANY)
    node.advance(TIMING.rekey_timeout * 0.9)

    assert node.sessions.want(1, node.now) == []

    node.advance(TIMING.rekey_timeout * 0.1)
    assert node.calls[1] == [START, pytest.approx(START + TIMING.rekey_timeout)]


def test_a_peer_whose_turn_was_long_ago_is_called_at_once_for_a_packet_and_only_once():
    node = Calls(2 * MANY)
    node.advance(2.0)
    waiting = next(number for number, calls in node.calls.items() if calls == [START])

    outputs = node.sessions.want(waiting, node.now)

    assert [type(each) for each in outputs] == [Transmit, Retrying]
    assert node.sessions.want(waiting, node.now) == []


def test_keepalives_alone_are_not_a_reason_to_hurry():
    node = Calls(2 * MANY)
    node.advance(2.0)
    waiting = next(number for number, calls in node.calls.items() if calls == [START])

    assert node.sessions.want(waiting, node.now, is_idle=True) == []
    assert node.sessions.want(waiting, node.now, is_greeting=True) == []


def test_pace_is_kept_whatever_the_order_in_which_moments_are_asked_for():
    pace, step = Pace(), 1 / GREETINGS_PER_SECOND

    taken = [pace.next(at) for at in (5.0, 4.0, 5.0, 6.0)]

    assert taken == pytest.approx([5.0, 5.0 + step, 5.0 + 2 * step, 6.0])


def test_hurry_never_makes_an_attempt_later():
    attempt = Attempt(0.0, 1.0, is_awaited=False)

    attempt.hurry(3.0)

    assert (attempt.due_at, attempt.is_paced) == (1.0, False)
