"""The state that handshakes with one peer leave behind, to the last field."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections import Counter

import pytest

from overlay.crypto.keys import PrivateKey
from overlay.crypto.noise import HandshakeResult
from overlay.session.constants import RECALL_INTERVAL, REKEY_JITTER, REKEY_TIMEOUT
from overlay.session.outputs import GiveUp
from overlay.session.peer import LATEST, UNCONFIRMED, HandshakeStatus
from overlay.session.sessions import Sessions
from overlay.wire.bulk import CIPHERS
from overlay.wire.messages import KEY_SIZE, TYPE_RESPONSE
from tests.overlay.session.pair import START, Pair
from tests.refusals import refused

PSK, OTHER_PSK = b"p" * 32, b"q" * 32


def test_a_preshared_key_that_is_set_is_the_one_that_was_given(pair):
    pair.a.sessions.set_preshared_key(1, PSK)
    pair.a.want()
    pair.settle()
    assert not pair.is_connected()

    pair.b.sessions.set_preshared_key(1, PSK)
    pair.advance(2 * REKEY_TIMEOUT)
    assert pair.is_connected()


def test_a_preshared_key_that_is_replaced_is_used_no_more():
    pair = Pair(psk_a=PSK, psk_b=PSK)
    pair.a.sessions.set_preshared_key(1, OTHER_PSK)

    pair.a.want()
    pair.settle()

    assert not pair.is_connected()


def test_keys_of_units_are_two_for_each_cipher_and_crossed_between_the_ends(pair):
    mine, theirs = pair.handshake()

    assert [cipher for cipher, _, _ in mine.unit_keys] == list(CIPHERS)
    assert [(cipher, back, forth) for cipher, forth, back in mine.unit_keys] == list(theirs.unit_keys)
    keys = [key for _, *both in mine.unit_keys for key in both] + [mine.send_key, mine.receive_key]
    assert set(Counter(keys).values()) == {1}
    assert {len(key) for key in keys} == {KEY_SIZE}


def test_a_response_to_an_earlier_handshake_is_known_by_its_index(pair):
    pair.handshake()
    (response,) = [
        each for each in pair.b.outputs if getattr(each, "datagram", b"")[:1] == bytes([TYPE_RESPONSE])
    ]
    pair.advance(2 * REKEY_TIMEOUT)
    pair.a.want()

    with refused("response_index"):
        pair.a.sessions.receive(response.datagram, pair.b.address, pair.clock.now)

    pair.settle()
    assert pair.is_connected()


@pytest.mark.parametrize(("fill", "share"), [(0, 0.0), (128, 0.5), (255, 1.0)])
def test_the_jitter_lies_between_none_and_the_whole_of_it(fill, share):
    sessions = Sessions(
        PrivateKey(b"a" * 32), entropy=lambda size: bytes([fill]) * size, wall_ns=lambda: 10**18
    )
    sessions.add_peer(1, PrivateKey(b"b" * 32).public)

    sessions.want(1, START)

    jitter = sessions.next_deadline() - START - REKEY_TIMEOUT
    assert jitter == pytest.approx(share * REKEY_JITTER, abs=REKEY_JITTER / 100)


def test_a_peer_is_not_given_up_before_during_and_after_a_handshake(pair):
    def is_given_up():
        return pair.a.sessions.status(1).is_given_up

    assert is_given_up() is False
    pair.a.want()
    assert is_given_up() is False
    pair.settle()
    assert is_given_up() is False


def test_a_peer_given_up_is_not_once_it_is_wanted_again(pair):
    pair.lose = lambda flight: True
    pair.a.want()
    pair.advance(200)
    assert pair.a.sessions.status(1).is_given_up is True

    pair.a.want()

    assert pair.a.sessions.status(1).is_given_up is False


KEY = PrivateKey(b"k" * 32).public


@pytest.mark.parametrize(
    ("number", "public_key", "psk", "problem"),
    [
        (2, KEY[:31], None, "a public key has 32 bytes, not 31"),
        (2, KEY, b"p" * 33, "a preshared key has 32 bytes, not 33"),
        (1, KEY, None, "the peer's number or public key is taken"),
        (2, "own", None, "a node cannot be its own peer"),
        (2, "known", None, "the peer's number or public key is taken"),
    ],
    ids=["key", "preshared key", "number", "own key", "known key"],
)
def test_fault_of_a_peer_is_reported(pair, number, public_key, psk, problem):
    public_key = {"own": pair.a.key.public, "known": pair.b.key.public}.get(public_key, public_key)

    with pytest.raises(ValueError, match=f"^{re.escape(problem)}$"):
        pair.a.sessions.add_peer(number, public_key, psk)


def test_what_is_not_a_handshake_message_of_this_node_is_refused(pair):
    pair.a.want()
    (flight,) = pair.flights
    sessions, now = pair.b.sessions, pair.clock.now
    other = dataclasses.replace(flight, datagram=flight.datagram[:116] + bytes(32))

    with refused("handshake_type"):
        sessions.receive(b"\4\0\0\0" + bytes(144), flight.source, now)
    with refused("mac1"):
        sessions.receive(other.datagram, flight.source, now)

    assert sessions.receive(flight.datagram, flight.source, now)


def test_each_forwarder_may_end_after_a_handshake_of_its_own(pair):
    for _ in range(3):
        pair.a.want()
        pair.settle()
        assert pair.is_connected()

        for node in (pair.a, pair.b):
            node.sessions.start_over()

        assert len(pair.a.sessions._indices) == len(pair.b.sessions._indices) == 0
        pair.advance(REKEY_TIMEOUT)


def test_a_peer_may_be_wiped_twice(pair):
    pair.a.want()
    pair.settle()
    handshakes = pair.a.sessions._by_number[1]

    handshakes.wipe()
    handshakes.wipe()

    assert len(pair.a.sessions._indices) == 0


def test_a_preshared_key_that_is_replaced_is_overwritten():
    handshakes = Pair(psk_a=PSK).a.sessions._by_number[1]
    before = handshakes._preshared_key

    handshakes.set_preshared_key(OTHER_PSK)

    assert before == bytes(KEY_SIZE)
    assert handshakes._preshared_key == OTHER_PSK


def test_a_peer_that_is_wiped_keeps_neither_its_static_secret_nor_its_cookie(pair):
    pair.handshake()
    handshakes = pair.a.sessions._by_number[1]
    cookies = handshakes._cookie_holder()
    cookies._cookie, cookies._cookie_until = b"c" * 16, START + 100
    assert handshakes._acquaintance._secrets

    handshakes.wipe()

    assert not handshakes._acquaintance._secrets
    assert (cookies._cookie, cookies._sent_mac1) == (b"", None)


def test_the_chaining_key_of_a_handshake_is_overwritten_once_its_keys_are_derived(pair):
    handshakes = pair.a.sessions._by_number[1]
    result = HandshakeResult(b"k" * KEY_SIZE, is_initiator=True)

    handshakes._install(result, 1, 2, ("192.0.2.1", 1), START, is_initiator=True)

    with pytest.raises(AssertionError, match="wiped"):
        result.transport_keys()


def test_a_peer_before_its_first_handshake_has_done_nothing_and_is_not_doubted(pair):
    assert pair.a.sessions.status(1) == HandshakeStatus(
        is_running=False, retries=0, is_given_up=False, completed_at=None
    )


@pytest.mark.parametrize(("after", "is_called"), [(RECALL_INTERVAL - 0.001, False), (RECALL_INTERVAL, True)])
def test_a_peer_whose_clock_was_set_back_is_called_again_a_minute_later(pair, after, is_called):
    handshakes = pair.b.sessions._by_number[1]
    handshakes._take_old(60.0, START)
    assert handshakes.status.is_running
    handshakes.start_over()

    handshakes._take_old(60.0, START + after)

    assert handshakes.status.is_running is is_called


def test_clock_of_a_peer_is_compared_with_ours_of_now(pair):
    assert pair.b.sessions.ahead(1, pair.clock.now) is None

    pair.handshake()
    pair.advance(50)
    assert pair.b.sessions.ahead(1, pair.clock.now) == pytest.approx(0, abs=1)

    pair.clock.wall -= 3600 * 10**9  # our own clock was set, which was ahead, too
    assert pair.b.sessions.ahead(1, pair.clock.now) == pytest.approx(3600, abs=1)
    pair.b.sessions._by_number[1]._take_old(60.0, pair.clock.now)
    assert pair.b.sessions.ahead(1, pair.clock.now) is None


@pytest.mark.parametrize(
    ("unconfirmed", "refused", "after", "is_doubted"),
    [
        (UNCONFIRMED - 1, 0, 0.0, False),
        (UNCONFIRMED, 0, 0.0, True),
        (0, 1, 0.0, True),
        (0, 1, 9.999, True),
        (0, 1, 10.0, False),
    ],
)
def test_keys_are_doubted_after_enough_handshakes_in_vain_and_for_a_while(
    unconfirmed, refused, after, is_doubted
):
    status = HandshakeStatus(
        is_running=False,
        retries=0,
        is_given_up=False,
        completed_at=None,
        unconfirmed=unconfirmed,
        refused=refused,
        doubted_at=START,
    )

    assert status.is_doubted(START + after, 10.0) is is_doubted


@pytest.mark.parametrize(
    ("outdated", "behind", "expected"), [(0, 99.0, False), (1, LATEST, False), (1, LATEST + 0.1, True)]
)
def test_a_clock_is_behind_once_an_initiation_came_that_no_network_delays_so_long(outdated, behind, expected):
    status = HandshakeStatus(
        is_running=False,
        retries=0,
        is_given_up=False,
        completed_at=None,
        outdated=outdated,
        behind=behind,
    )

    assert status.has_clock_behind is expected


@pytest.mark.parametrize(
    ("after", "due"),
    [(1.0, REKEY_TIMEOUT), (REKEY_TIMEOUT, REKEY_TIMEOUT), (REKEY_TIMEOUT + 2, REKEY_TIMEOUT + 2)],
)
def test_a_peer_whose_clock_was_set_back_is_not_called_sooner_than_a_peer_may_be(pair, after, due):
    pair.b.want()
    pair.settle()
    handshakes = pair.b.sessions._by_number[1]
    assert not handshakes.status.is_running

    handshakes._take_old(60.0, START + after)

    assert handshakes.deadline == START + due


def test_a_peer_that_was_given_up_is_called_with_pauses_that_grow_while_nothing_but_keepalives_goes(pair):
    pair.lose = lambda flight: True
    pair.a.want()
    pair.advance(200)
    assert pair.a.of(GiveUp) == [GiveUp(1)]
    calls = []
    pair.lose = lambda flight: bool(calls.append(pair.clock.now)) or True

    pair.a.carry_out(pair.a.sessions.want(1, pair.clock.now, is_idle=True))
    pair.advance(400)

    waits = [then - now for now, then in itertools.pairwise(calls)]
    assert [round(wait) // 10 for wait in waits] == [2, 4, 6, 6, 6, 6, 6]
    assert pair.a.of(GiveUp) == [GiveUp(1)]
    assert pair.a.sessions.status(1).is_given_up

    pair.a.want()  # for a packet
    pair.advance(20)
    assert len(calls) >= 8 + 3
    assert not pair.a.sessions.status(1).is_given_up
