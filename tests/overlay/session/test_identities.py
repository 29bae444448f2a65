"""A node whose private key is being replaced: it answers to both, and calls each peer with the key
that the peer knows.
"""

import pytest

from overlay.crypto import blake2s, cookies, noise
from overlay.crypto.keys import PrivateKey
from overlay.errors import PacketError, ReplayedInitiationError
from overlay.session.identities import Acquaintance, Identities
from overlay.session.outputs import Completed, Transmit
from overlay.wire.messages import MAC_SIZE, TYPE_INITIATION, Initiation, message_type
from tests.overlay.session.pair import START, Pair, match

NEW = PrivateKey(bytes(range(32)))


def rotating(**fields):
    """Return a pair whose node a has a next key; b knows the old one."""
    pair = Pair(**fields)
    pair.a.use_keys(pair.a.key, NEW)
    return pair


def learn(pair):
    """Make b know a by the new key, as after a reload: as another peer."""
    pair.b.carry_out(pair.b.sessions.remove_peer(1))
    pair.b.sessions.add_peer(1, NEW.public)


def own_key(pair):
    return pair.a.sessions.status(1).own_key


@pytest.mark.parametrize("caller", ["a", "b"])
def test_peer_with_the_old_key_is_reached_as_before(caller):
    pair = rotating()

    getattr(pair, caller).want()
    pair.settle()

    assert pair.is_connected()
    assert own_key(pair) == pair.a.key.public


def test_peer_with_the_new_key_is_answered():
    pair = rotating()
    learn(pair)

    pair.b.want()
    pair.settle()

    assert pair.is_connected()
    assert own_key(pair) == NEW.public


def test_peer_that_used_the_new_key_is_called_by_it_at_once():
    pair = rotating()
    learn(pair)
    pair.b.want()
    pair.settle()
    pair.advance(10)

    pair.a.want()
    pair.settle()

    assert pair.a.of(Completed)[-1].is_initiator
    assert pair.a.of(Completed)[-1].took == 0
    assert not pair.b.refused


def test_silent_peer_with_the_new_key_is_reached_by_the_first_retry():
    pair = rotating()
    pair.handshake()
    learn(pair)

    pair.a.want()
    pair.advance(11)

    assert pair.is_connected()
    assert own_key(pair) == NEW.public
    assert pair.a.of(Completed)[-1].took < 11


def test_unreachable_peer_is_called_by_both_keys_in_turn_and_no_more_often_than_by_one():
    pair = rotating()
    pair.lose = lambda flight: True
    pair.a.want()

    pair.advance(100)

    calls = [each.datagram for each in pair.a.of(Transmit) if message_type(each.datagram) == TYPE_INITIATION]
    claimed = [noise.open_static(pair.b.key, Initiation.parse(each)).initiator_public for each in calls]
    assert len(claimed) == 19
    assert claimed == [(pair.a.key.public, NEW.public)[number % 2] for number in range(19)]


def test_peer_that_goes_back_to_the_old_key_is_followed():
    pair = rotating()
    learn(pair)
    pair.b.want()
    pair.settle()
    pair.b.carry_out(pair.b.sessions.remove_peer(1))
    pair.b.sessions.add_peer(1, pair.a.key.public)
    pair.advance(6)

    pair.b.want()
    pair.settle()

    assert own_key(pair) == pair.a.key.public


def test_old_key_is_answered_no_more_once_it_is_withdrawn():
    pair = rotating()
    pair.a.use_keys(NEW)

    pair.b.want()
    pair.settle()

    assert pair.a.refused == ["mac1 at the forwarder"]
    with pytest.raises(PacketError, match="mac1"):
        pair.a.sessions.receive(pair.b.of(Transmit)[0].datagram, ("192.0.2.2", 2), START)


def test_sessions_stay_while_keys_come_and_go():
    pair = rotating()
    pair.handshake()
    before = dict(pair.a.keypairs)

    pair.a.use_keys(NEW)
    pair.a.use_keys(NEW, pair.a.key)

    assert pair.a.keypairs == before
    assert pair.is_connected()


def test_attempt_under_way_goes_on_with_a_key_that_is_left():
    pair = rotating()
    learn(pair)
    pair.a.want()  # by the old key
    pair.a.use_keys(NEW)

    pair.advance(6)

    assert pair.is_connected()


def test_initiation_that_was_taken_is_refused_under_the_other_key_too():
    pair = rotating()
    pair.b.want()
    (taken,) = pair.flights
    pair.settle()
    for keys in ((NEW, pair.a.key), (pair.a.key, NEW), (pair.a.key,)):
        pair.a.use_keys(*keys)

        with pytest.raises(PacketError, match="initiation_replayed"):
            pair.a.sessions.receive(taken.datagram, taken.source, pair.clock.now + 1)


def test_older_initiation_to_the_old_key_is_refused_after_a_newer_one_to_the_new():
    pair = rotating()
    pair.b.want()
    older = pair.flights.pop()
    pair.clock.advance(1)
    learn(pair)
    pair.b.want()
    pair.settle()

    with pytest.raises(PacketError, match="initiation_replayed"):
        pair.a.sessions.receive(older.datagram, older.source, pair.clock.now + 1)

    assert own_key(pair) == NEW.public


@pytest.mark.parametrize("is_new", [False, True])
def test_cookies_work_under_either_key(is_new):
    pair = rotating()
    if is_new:
        learn(pair)
    pair.a.is_loaded = True

    pair.b.want()
    pair.advance(6)

    assert pair.is_connected()


def test_new_key_of_its_own_is_not_a_peer():
    pair = rotating()

    with pytest.raises(ValueError, match="own peer"):
        pair.a.sessions.add_peer(9, NEW.public)


def test_message_for_nobody_is_refused_before_any_exchange():
    identities = Identities(PrivateKey(bytes(32)), NEW)

    with pytest.raises(PacketError, match="mac1"):
        identities.addressed_by(bytes(148))


def test_secrets_of_withdrawn_keys_are_forgotten():
    keys = [PrivateKey(bytes([number] * 32)) for number in range(1, 6)]
    identities = Identities(keys[0])
    peer = Acquaintance(identities, NEW.public)
    for key in keys:
        identities.use(key)
        peer.secret(identities.known[0])

    assert len(peer._secrets) <= 2


def test_whole_life_of_a_key():
    """Begin, learn, finish, with a rekey in each state: there is a session all the time."""
    pair = rotating()
    pair.handshake()
    pair.advance(120)
    pair.a.want()
    pair.settle()
    learn(pair)
    pair.b.want()
    pair.settle()
    pair.a.use_keys(NEW)
    pair.advance(120)
    pair.a.want()
    pair.settle()

    mine, theirs = list(pair.a.keypairs.values())[-1], list(pair.b.keypairs.values())[-1]
    assert match(mine, theirs)
    assert not pair.a.refused


# Attacks on a node that answers to two keys


def recorded(pair):
    """Return the last initiation of b, as someone on the path has it."""
    return next(
        each.datagram
        for each in reversed(pair.b.of(Transmit))
        if message_type(each.datagram) == TYPE_INITIATION
    )


def test_initiation_to_the_old_key_is_of_no_use_again_before_and_after_its_withdrawal():
    pair = rotating()
    pair.b.want()
    pair.settle()
    old = recorded(pair)
    pair.advance(1)
    attacker, before = ("192.0.2.66", 6), dict(pair.a.keypairs)

    with pytest.raises(ReplayedInitiationError):
        pair.a.sessions.receive(old, attacker, pair.clock.now)
    pair.a.use_keys(NEW, pair.a.key)
    with pytest.raises(ReplayedInitiationError):
        pair.a.sessions.receive(old, attacker, pair.clock.now)
    pair.a.use_keys(NEW)
    with pytest.raises(PacketError, match="mac1"):
        pair.a.sessions.receive(old, attacker, pair.clock.now)

    assert pair.a.keypairs == before


def test_initiation_to_the_old_key_does_not_serve_at_the_new_one_with_another_mac1():
    pair = rotating()
    pair.b.want()
    old = recorded(pair)
    without = old[: -2 * MAC_SIZE]
    forged = without + blake2s.mac(cookies.mac1_key(NEW.public), without) + bytes(MAC_SIZE)

    with pytest.raises(PacketError) as refusal:
        pair.a.sessions.receive(forged, pair.b.address, pair.clock.now)

    assert refusal.value.reason != "mac1"
    assert pair.a.keypairs == {}


@pytest.mark.parametrize("knows_new", [False, True])
def test_cookie_of_either_key_serves_the_peer_that_knows_that_key(knows_new):
    pair = rotating()
    if knows_new:
        learn(pair)
    pair.a.is_loaded = True

    pair.b.want()
    pair.advance(6)

    assert pair.is_connected()
    assert own_key(pair) == (NEW if knows_new else pair.a.key).public


def test_cookie_reply_under_one_key_is_refused_by_a_peer_that_called_by_the_other():
    pair = rotating()
    pair.b.want()  # by the old key
    initiation = recorded(pair)
    reply = pair.a.checkers[1].make_reply(initiation, b"anywhere", pair.clock.now)

    with pytest.raises(PacketError):
        pair.b.sessions.receive(reply, pair.a.address, pair.clock.now)
