"""Handshakes that are lost, duplicated, late, given up, or begun by both ends at once; clocks and restarts."""

from __future__ import annotations

import math

import pytest

from overlay.session.constants import (
    INITIATION_INTERVAL,
    REKEY_ATTEMPT_TIME,
    REKEY_TIMEOUT,
    Timing,
)
from overlay.session.outputs import GiveUp, InstallKeypair, Retrying, Transmit, Wipe
from overlay.wire.messages import (
    TYPE_INITIATION,
    TYPE_RESPONSE,
    Initiation,
    message_type,
)
from tests.overlay.crypto.models import SlowNode
from tests.overlay.session.losing import LONGEST_WAIT, MAX_RETRIES, kinds, lose_all
from tests.overlay.session.pair import START, Flight, Pair, match, snapshot
from tests.overlay.session.test_sessions import _public

# Loss, duplication, reordering


def test_an_unanswered_initiation_is_sent_again_after_rekey_timeout_and_jitter(pair):
    pair.lose = lose_all
    pair.a.want()
    deadline = pair.a.sessions.next_deadline()
    pair.advance(LONGEST_WAIT)

    first, second, retrying = pair.a.outputs
    assert START + REKEY_TIMEOUT <= deadline <= START + LONGEST_WAIT
    assert second.renew_source
    assert second.endpoint is None
    assert retrying == Retrying(1, 1)
    before, after = Initiation.parse(first.datagram), Initiation.parse(second.datagram)
    assert before.sender_index != after.sender_index
    assert before.ephemeral != after.ephemeral


def test_the_jitter_differs_from_retry_to_retry(pair):
    pair.lose = lose_all
    pair.a.want()
    waits = set()
    for _ in range(5):
        waits.add(round(pair.a.sessions.next_deadline() - pair.clock.now, 6))
        pair.advance(pair.a.sessions.next_deadline() - pair.clock.now)

    assert len(waits) == 5


def test_a_lost_response_is_made_up_by_the_retry(pair):
    pair.lose = lambda flight: flight.kind == TYPE_RESPONSE
    pair.a.want()
    pair.settle()
    pair.lose = lambda flight: False
    pair.advance(LONGEST_WAIT)

    assert pair.is_connected()
    assert len(pair.a.of(InstallKeypair)) == 1
    assert len(pair.b.of(InstallKeypair)) == 2


def test_a_duplicated_initiation_is_refused_as_a_replay(pair):
    pair.a.want()
    pair.flights *= 2
    pair.settle()

    assert pair.b.refused == ["initiation_replayed"]
    assert pair.is_connected()


def test_a_duplicated_response_is_refused(pair):
    pair.a.want()
    pair.deliver(pair.flights.pop())
    pair.flights *= 2
    pair.settle()

    assert pair.a.refused == ["response_index"]
    assert len(pair.a.keypairs) == 1


def test_an_initiation_that_arrives_after_its_successor_is_refused(pair):
    late = []
    pair.lose = lambda flight: not late and (late.append(flight) or True)
    pair.a.want()
    pair.advance(LONGEST_WAIT)
    pair.deliver(late[0])

    assert pair.b.refused == ["initiation_replayed"]
    assert pair.is_connected()


def test_a_response_that_arrives_after_the_retry_is_refused_and_the_next_one_taken(pair):
    pair.a.want()
    pair.deliver(pair.flights.pop())
    late = pair.flights.pop()
    pair.lose = lambda flight: flight.kind == TYPE_RESPONSE
    pair.advance(LONGEST_WAIT)
    pair.deliver(late)
    assert pair.a.refused == ["response_index"]

    pair.lose = lambda flight: False
    pair.advance(LONGEST_WAIT)
    assert pair.is_connected()


def test_a_replayed_initiation_is_refused_for_ever(pair):
    pair.a.want()
    recorded = pair.flights[0]
    pair.settle()
    for seconds in (0, 1, 1000):
        pair.advance(seconds)
        pair.deliver(Flight(("203.0.113.9", 9), recorded.destination, recorded.datagram))

    assert pair.b.refused == ["initiation_replayed"] * 3
    assert pair.b.endpoints[1] == pair.a.address


def set_back(pair, seconds):
    """Restart a with its clock *seconds* behind, and let it call b."""
    pair.advance(LONGEST_WAIT)
    pair.clock.wall -= round(seconds * 1e9)
    pair.a.restart()
    pair.a.know(1, pair.b)
    pair.a.want()


def test_a_peer_whose_clock_was_set_back_is_called_and_so_reached(pair):
    pair.handshake()
    set_back(pair, 26 * 3600)

    pair.advance(0)

    assert pair.b.refused == ["initiation_replayed"]
    assert pair.is_connected()
    assert pair.b.sessions.status(1).behind == pytest.approx(26 * 3600 - LONGEST_WAIT, abs=0.1)


def test_a_peer_whose_clock_was_set_back_is_called_seldom_and_where_it_was_heard(pair):
    pair.handshake()
    pair.lose = lambda flight: flight.source == pair.b.address
    set_back(pair, 3600)
    pair.advance(0)
    calls = len(pair.b.of(Transmit))
    pair.b.sessions.start_over()  # which ends the attempt

    pair.advance(30)
    status = pair.b.sessions.status(1)

    assert len(pair.b.of(Transmit)) == calls
    assert all(transmit.endpoint is None for transmit in pair.b.of(Transmit)[1:])
    assert (status.outdated, status.has_clock_behind, status.is_running) == (6, True, False)


def test_the_clock_is_right_again_with_an_initiation_that_is_taken(pair):
    pair.handshake()
    pair.lose = lambda flight: flight.source == pair.b.address
    set_back(pair, 60)
    pair.advance(20)
    assert pair.b.sessions.status(1).has_clock_behind

    pair.advance(50)

    assert not pair.b.sessions.status(1).has_clock_behind


def test_a_replay_of_the_initiation_that_was_taken_says_nothing_of_the_clock(pair):
    pair.a.want()
    pair.flights *= 3
    pair.settle()

    assert pair.b.sessions.status(1).outdated == 0
    assert not pair.b.sessions.status(1).is_running


def test_a_second_initiation_within_20_milliseconds_is_refused(pair):
    pair.handshake()
    pair.a.sessions.start_over()
    pair.clock.advance(INITIATION_INTERVAL - 0.001)
    pair.a.want()
    pair.settle()

    assert pair.b.refused == ["initiation_flood"]


def test_a_refused_flood_does_not_use_up_its_timestamp(pair):
    pair.handshake()
    pair.a.sessions.start_over()
    pair.a.want()
    flight = pair.flights[0]
    pair.settle()
    pair.clock.advance(INITIATION_INTERVAL)
    pair.deliver(flight)

    assert pair.b.refused == ["initiation_flood"]
    assert len(pair.b.of(InstallKeypair)) == 2


# Both at once


def test_initiations_that_cross_give_each_end_what_it_needs_after_one_round_trip(pair):
    pair.a.want()
    pair.b.want()
    pair.settle()

    # Two sessions; each end may send at once under the one it began, which the other end holds too.
    for here, there in (pair.nodes, pair.nodes[::-1]):
        (began,) = [keypair for keypair in here.keypairs.values() if keypair.is_initiator]
        assert any(match(began, theirs) for theirs in there.keypairs.values())
        assert not here.sessions.status(1).is_running
        assert here.refused == []


def test_a_peer_that_drops_its_own_attempt_for_ours_is_reached(pair):
    # As in wireguard-go and the kernel: one handshake state for each peer, overwritten by an initiation.
    slow = SlowNode(bytes(range(32)), pair.a.key.public)
    pair.a.sessions.add_peer(2, _public(slow.private))
    theirs = slow.initiation(7, b"e" * 32, bytes.fromhex("400000006000000000000000"))
    (ours,) = pair.a.sessions.want(2, START)
    pair.a.sessions.receive(theirs, ("192.0.2.3", 3), START)
    response = slow.response_to(ours.datagram, 8, b"f" * 32)

    install, _ = pair.a.sessions.receive(response, ("192.0.2.3", 3), START)

    assert (install.is_initiator, install.send_key) == (True, slow.receive)


def test_a_confirmed_keypair_ends_our_own_attempt(pair):
    pair.lose = lambda flight: flight.source == pair.a.address and flight.kind == TYPE_INITIATION
    pair.a.want()
    pair.b.want()
    pair.settle()
    assert pair.a.sessions.status(1).is_running

    (keypair,) = pair.a.keypairs
    pair.a.sessions.confirmed(keypair, pair.clock.now)
    pair.advance(60)

    assert not pair.a.sessions.status(1).is_running
    assert len([flight for flight in pair.a.of(Transmit) if message_type(flight.datagram) == 1]) == 1


def test_an_unconfirmed_keypair_leaves_our_own_attempt_going(pair):
    pair.lose = lambda flight: flight.source == pair.a.address
    pair.a.want()
    pair.b.want()
    pair.advance(LONGEST_WAIT)

    assert pair.a.sessions.status(1).retries == 1


def test_confirming_an_index_that_is_not_a_keypair_s_changes_nothing(pair):
    pair.a.want()
    (index,) = pair.a.sessions._indices._owners
    before = snapshot(pair.a.sessions)
    pair.a.sessions.confirmed(index, pair.clock.now)
    pair.a.sessions.confirmed(index ^ 1, pair.clock.now)

    assert snapshot(pair.a.sessions) == before


# Patience and its end


def test_a_silent_peer_is_given_up_after_18_retries(pair):
    pair.lose = lose_all
    pair.a.want()
    pair.advance(200)

    assert [output.attempt for output in pair.a.of(Retrying)] == list(range(1, MAX_RETRIES + 1))
    assert len(pair.a.of(Transmit)) == MAX_RETRIES + 1
    assert pair.a.outputs[-1] == GiveUp(1)
    status = pair.a.sessions.status(1)
    assert (status.is_given_up, status.is_running) == (True, False)
    assert pair.a.sessions.next_deadline() == math.inf
    assert len(pair.a.sessions._indices) == 0


def test_a_peer_is_given_up_between_rekey_attempt_time_and_a_retry_later(pair):
    pair.lose = lose_all
    pair.a.want()
    pair.advance(REKEY_ATTEMPT_TIME)
    assert not pair.a.of(GiveUp)

    pair.advance((MAX_RETRIES + 1) * LONGEST_WAIT - REKEY_ATTEMPT_TIME)
    assert pair.a.of(GiveUp)


def test_a_peer_given_up_is_wanted_again_with_full_patience(pair):
    pair.lose = lose_all
    pair.a.want()
    pair.advance(200)
    pair.a.want()
    assert not pair.a.sessions.status(1).is_given_up

    pair.advance(200)
    assert len(pair.a.of(GiveUp)) == 2
    assert len(pair.a.of(Retrying)) == 2 * MAX_RETRIES


def test_a_peer_given_up_that_calls_is_no_longer_given_up(pair):
    pair.lose = lose_all
    pair.a.want()
    pair.advance(200)
    pair.lose = lambda flight: False
    pair.b.want()
    pair.settle()
    pair.a.sessions.confirmed(next(iter(pair.a.keypairs)), pair.clock.now)

    assert not pair.a.sessions.status(1).is_given_up
    assert pair.is_connected()


def test_a_response_to_an_attempt_given_up_is_refused(pair):
    pair.lose = lambda flight: flight.kind == TYPE_RESPONSE and (late.append(flight) or True)
    late = []
    pair.a.want()
    pair.advance(200)
    pair.deliver(late[-1])

    assert pair.a.refused == ["response_index"]


def test_times_can_be_shortened():
    pair = Pair(timing=Timing(rekey_timeout=0.05, rekey_attempt_time=0.1, rekey_jitter=0.0))
    pair.lose = lose_all
    pair.a.want()
    pair.advance(0.2)

    assert kinds(pair.a.outputs) == [Transmit, Transmit, Retrying, Transmit, Retrying, GiveUp]


# Clocks that jump


def test_a_retry_that_fell_into_suspend_is_made_up_once(pair):
    pair.lose = lose_all
    pair.a.want()
    pair.jump(3600)

    assert len(pair.a.of(Retrying)) == 1
    assert pair.a.sessions.next_deadline() > pair.clock.now


def test_a_wipe_that_fell_into_suspend_is_made_up(pair):
    pair.handshake()
    pair.jump(86400)

    assert pair.a.of(Wipe) == [Wipe(1)]


def test_a_wall_clock_set_back_does_not_stop_handshakes(pair):
    pair.handshake()
    pair.clock.wall -= 10**18
    pair.advance(REKEY_TIMEOUT)
    pair.a.want()
    pair.settle()

    assert len(pair.a.keypairs) == 2
    assert pair.b.refused == []


def test_the_plausibility_of_the_clock_is_known(pair):
    assert pair.a.sessions.is_clock_plausible()
    pair.clock.wall = 0
    assert not pair.a.sessions.is_clock_plausible()


# Restart


def test_a_restarted_responder_is_reached_again(pair):
    pair.handshake()
    pair.b.restart()
    pair.b.know(1, pair.a)
    pair.advance(15)
    pair.a.want()
    pair.settle()

    assert match(list(pair.a.keypairs.values())[-1], next(iter(pair.b.keypairs.values())))


def test_a_restarted_initiator_is_answered_at_once(pair):
    pair.handshake()
    pair.advance(1)
    pair.a.restart()
    pair.a.know(1, pair.b)
    pair.a.want()
    pair.settle()

    assert pair.is_connected()
    assert pair.b.refused == []


def test_a_restarted_initiator_whose_clock_was_set_back_is_refused(pair):
    pair.handshake()
    pair.a.restart()
    pair.a.know(1, pair.b)
    pair.clock.wall -= 10**9
    pair.clock.now += 1
    pair.a.want()
    pair.settle()

    assert pair.b.refused == ["initiation_replayed"]
