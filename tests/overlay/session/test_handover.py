"""A peer with a new public key: what its former keypairs may still be used for, and for how long."""

import math

import pytest

from overlay.crypto.keys import PrivateKey
from overlay.errors import PacketError, UnknownInitiatorError
from overlay.session.constants import REKEY_TIMEOUT
from overlay.session.handover import RETRIES
from overlay.session.outputs import Forget, InstallKeypair, Transmit
from tests.overlay.session.pair import Pair

NEW = PrivateKey(bytes(range(32)))
PATIENCE = RETRIES * REKEY_TIMEOUT


@pytest.fixture
def pair():
    """A pair with a session, whose node a also answers to another key."""
    made = Pair()
    made.handshake()
    made.a.use_keys(made.a.key, NEW)
    return made


def learn(pair, key=NEW):
    """Make b know a by another key, as after a reload."""
    pair.b.sessions.change_public_keys({1: (key.public, None)})
    pair.advance(0)


def test_former_keypairs_stay_beside_the_new_ones_for_a_while(pair):
    before = set(pair.b.keypairs)
    learn(pair)

    pair.b.want()
    pair.settle()

    assert before < set(pair.b.keypairs)
    assert pair.a.sessions.status(1).own_key == NEW.public
    pair.advance(PATIENCE - 1)
    assert before < set(pair.b.keypairs)
    pair.advance(1)
    assert not before & set(pair.b.keypairs)
    assert pair.b.keypairs
    assert pair.b.of(Forget) == [Forget(1, sorted(before))]


def test_former_keypairs_end_in_time_though_no_new_ones_came(pair):
    pair.lose = lambda flight: True
    learn(pair)
    pair.b.want()

    pair.advance(PATIENCE)

    assert pair.b.keypairs == {}
    assert len(pair.b.sessions._indices) == 1  # of the attempt


def test_former_attempt_is_over_and_its_answer_refused(pair):
    pair.advance(6)
    pair.b.want()
    answers = []
    pair.lose = lambda flight: flight.destination == pair.b.address and not answers.append(flight)
    pair.settle()
    learn(pair)

    with pytest.raises(PacketError, match="response_index"):
        pair.b.sessions.receive(answers[0].datagram, pair.a.address, pair.clock.now)


def test_former_key_makes_no_session_any_more(pair):
    pair.advance(6)
    learn(pair)
    pair.a.use_keys(pair.a.key)
    pair.a.want()
    initiation = pair.a.of(Transmit)[-1].datagram

    with pytest.raises(UnknownInitiatorError):
        pair.b.sessions.receive(initiation, pair.a.address, pair.clock.now)


def test_former_keypair_that_is_used_late_confirms_nothing():
    pair = Pair()
    pair.handshake()
    (answered,) = pair.b.keypairs
    learn(pair)

    assert pair.b.sessions.confirmed(answered, pair.clock.now) == []
    assert pair.b.sessions.status(1).completed_at is None


def test_keys_that_alternate_leave_nothing_behind_and_prolong_nothing(pair):
    (first,) = pair.b.keypairs
    for number in range(20):
        learn(pair, NEW if number % 2 == 0 else pair.a.key)
        pair.advance(1)

    assert first not in pair.b.keypairs
    pair.advance(PATIENCE)
    assert pair.b.keypairs == {}
    assert len(pair.b.sessions._indices) == 0
    assert pair.b.sessions._handovers.next_deadline() == math.inf


@pytest.mark.parametrize("end", ["remove_peer", "start_over", "change_key"])
def test_whatever_ends_all_keypairs_ends_the_former_ones(pair, end):
    learn(pair)
    arguments = {"remove_peer": (1,), "start_over": (), "change_key": (PrivateKey(b"\x09" * 32),)}[end]

    getattr(pair.b.sessions, end)(*arguments)

    assert len(pair.b.sessions._indices) == 0
    pair.b.outputs.clear()
    pair.b.carry_out(pair.b.sessions.handle_deadline(pair.clock.now + PATIENCE))
    assert pair.b.of(Forget) == []


def test_two_peers_may_be_given_other_keys_at_once_each_that_of_the_other(pair):
    other = PrivateKey(b"\x05" * 32)
    pair.b.sessions.add_peer(2, other.public)

    pair.b.sessions.change_public_keys({1: (other.public, None), 2: (pair.a.key.public, None)})

    pair.b.endpoints[2] = pair.a.address
    pair.b.want(2)
    pair.settle()
    assert pair.b.of(InstallKeypair)[-1].peer == 2
