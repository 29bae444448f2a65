from __future__ import annotations

import math
import os

import pytest

from overlay.session.constants import (
    INITIATION_INTERVAL,
    KEYPAIRS,
    REJECT_AFTER_TIME,
    REKEY_TIMEOUT,
)
from overlay.session.outputs import Answered, Completed, InstallKeypair, Transmit, Wipe
from overlay.session.sessions import DUE_AT_ONCE
from overlay.wire.messages import (
    TYPE_COOKIE_REPLY,
    TYPE_INITIATION,
    TYPE_RESPONSE,
    CookieReply,
    message_type,
)
from tests.overlay.crypto.models import SlowNode
from tests.overlay.crypto.vectors import vectors
from tests.overlay.session.losing import LONGEST_WAIT, kinds, lose_all
from tests.overlay.session.pair import START, Flight, Pair, match, snapshot
from tests.refusals import refused

# A handshake


def test_a_handshake_gives_both_ends_the_two_sides_of_one_session(pair):
    mine, theirs = pair.handshake()

    assert match(mine, theirs)
    assert mine.is_initiator
    assert not theirs.is_initiator


def test_the_keypair_tells_where_the_handshake_came_from_and_when(pair):
    mine, theirs = pair.handshake()

    assert (mine.peer, mine.endpoint, mine.created) == (1, pair.b.address, START)
    assert (theirs.peer, theirs.endpoint, theirs.created) == (1, pair.a.address, START)


def test_an_initiation_goes_to_the_endpoint_the_forwarder_holds(pair):
    pair.a.want()

    (initiation,) = pair.a.outputs
    assert message_type(initiation.datagram) == TYPE_INITIATION
    assert initiation.endpoint is None
    assert not initiation.renew_source


def test_a_response_goes_where_the_initiation_came_from_after_its_keypair(pair):
    pair.handshake()

    _, response, answered = pair.b.outputs
    assert kinds(pair.b.outputs) == [InstallKeypair, Transmit, Answered]
    assert message_type(response.datagram) == TYPE_RESPONSE
    assert response.endpoint == pair.a.address
    assert answered == Answered(1, pair.a.address)


def test_the_responder_has_completed_nothing_before_the_first_message_under_the_new_keys(pair):
    _, theirs = pair.handshake()
    assert pair.b.sessions.status(1).completed_at is None
    answered_at = pair.clock.now
    pair.clock.advance(0.25)

    outputs = pair.b.sessions.confirmed(theirs.local_index, pair.clock.now)

    assert outputs == [Completed(1, pair.a.address, is_initiator=False, took=0.25, round_trip=0.25)]
    assert pair.b.sessions.status(1).completed_at == answered_at
    assert pair.b.sessions.confirmed(theirs.local_index, pair.clock.now) == []


def test_handshakes_with_different_preshared_keys_are_doubted_at_both_ends():
    pair = Pair(psk_a=b"a" * 32, psk_b=b"b" * 32)
    pair.a.want()
    pair.advance(2 * LONGEST_WAIT)
    a, b = (node.sessions.status(1) for node in pair.nodes)

    assert (a.completed_at, a.refused, a.unconfirmed) == (None, 3, 0)
    assert (b.completed_at, b.refused, b.unconfirmed) == (None, 0, 3)
    assert a.is_doubted(pair.clock.now, 180)
    assert b.is_doubted(pair.clock.now, 180)


def test_doubts_end_with_a_handshake_that_is_completed_and_with_time():
    pair = Pair(psk_a=b"a" * 32, psk_b=b"b" * 32)
    pair.a.want()
    pair.advance(2 * LONGEST_WAIT)
    doubted_at = pair.clock.now
    assert not pair.b.sessions.status(1).is_doubted(doubted_at + 200, 180)

    pair.b.sessions.set_preshared_key(1, b"a" * 32)
    pair.advance(LONGEST_WAIT)
    pair.b.sessions.confirmed(list(pair.b.keypairs)[-1], pair.clock.now)

    assert [node.sessions.status(1).is_doubted(pair.clock.now, 180) for node in pair.nodes] == [False, False]


def test_a_keypair_of_the_responder_that_is_gone_completes_nothing(pair):
    _, theirs = pair.handshake()
    pair.b.sessions.retired(theirs.local_index)

    assert pair.b.sessions.confirmed(theirs.local_index, pair.clock.now) == []


def test_the_initiator_says_how_long_the_handshake_took(pair):
    pair.a.want()
    pair.clock.advance(0.25)
    pair.settle()

    assert pair.a.outputs[1:] == [
        *pair.a.keypairs.values(),
        Completed(1, pair.b.address, is_initiator=True, took=0.25, round_trip=0.25),
    ]


def test_a_preshared_key_is_mixed_into_the_session():
    keys = [Pair(psk_a=psk, psk_b=psk).handshake()[0].send_key for psk in (None, b"p" * 32)]

    assert len(set(keys)) == 2


@pytest.mark.parametrize("psk_b", [None, b"q" * 32])
def test_different_preshared_keys_make_no_session(psk_b):
    pair = Pair(psk_a=b"p" * 32, psk_b=psk_b)
    pair.a.want()
    pair.settle()

    assert pair.a.refused == ["response_seal"]
    assert not pair.is_connected()
    assert pair.a.sessions.status(1).is_running


def test_a_preshared_key_set_later_counts_for_the_next_handshake(pair):
    pair.a.sessions.set_preshared_key(1, b"p" * 32)
    pair.b.sessions.set_preshared_key(1, b"p" * 32)

    assert match(*pair.handshake())


def test_zeros_are_not_a_preshared_key():
    assert match(*Pair(psk_a=bytes(32), psk_b=None).handshake())


def test_seeded_entropy_repeats_a_story_byte_for_byte():
    def story(seed):
        pair = Pair(seed=seed)
        pair.lose = lambda flight: pair.clock.now < START + 12
        pair.a.want()
        pair.b.want()
        pair.advance(200)
        return pair.a.outputs, pair.b.outputs

    assert story(1) == story(1)
    assert story(1) != story(2)


def test_the_whitepaper_s_formulas_understand_our_initiation(pair):
    slow = SlowNode(bytes.fromhex("00" * 32), pair.a.key.public)
    pair.a.sessions.add_peer(2, _public(slow.private))
    (initiation,) = pair.a.sessions.want(2, START)
    response = slow.response_to(initiation.datagram, 7, b"e" * 32)

    install, _ = pair.a.sessions.receive(response, ("192.0.2.3", 3), START)

    assert (install.remote_index, install.send_key, install.receive_key) == (7, slow.receive, slow.send)


def test_the_whitepaper_s_formulas_understand_our_response(pair):
    slow = SlowNode(bytes.fromhex("00" * 32), pair.a.key.public)
    pair.a.sessions.add_peer(2, _public(slow.private))
    initiation = slow.initiation(7, b"e" * 32, bytes.fromhex("400000006000000000000000"))

    install, response, _ = pair.a.sessions.receive(initiation, ("192.0.2.3", 3), START)
    slow.finish(response.datagram)

    assert (install.remote_index, install.send_key, install.receive_key) == (7, slow.receive, slow.send)


def _public(private):
    from overlay.crypto.keys import PrivateKey

    return PrivateKey(private).public


# Wanting a session


def test_wanting_again_while_a_handshake_runs_does_nothing(pair):
    pair.lose = lose_all
    pair.a.want()
    pair.advance(3)
    pair.a.want()

    assert kinds(pair.a.outputs) == [Transmit]


def test_a_session_wanted_soon_after_the_last_initiation_waits_for_rekey_timeout(pair):
    pair.handshake()
    pair.advance(1)
    pair.a.want()

    assert len(pair.a.of(Transmit)) == 1
    assert pair.a.sessions.next_deadline() == START + REKEY_TIMEOUT
    pair.advance(4)
    assert len(pair.a.of(Transmit)) == 2
    assert len(pair.a.of(InstallKeypair)) == 2


def test_a_session_wanted_after_rekey_timeout_begins_at_once(pair):
    pair.handshake()
    pair.advance(REKEY_TIMEOUT)
    pair.a.want()
    pair.settle()

    assert len(pair.a.keypairs) == 2


def test_after_the_forwarder_was_lost_a_handshake_begins_at_once(pair):
    pair.handshake()
    pair.a.sessions.start_over()
    pair.clock.advance(INITIATION_INTERVAL)
    pair.a.want()
    pair.settle()

    assert len(pair.a.of(InstallKeypair)) == 2


def test_starting_over_ends_what_is_under_way_and_frees_every_index(pair):
    pair.handshake()
    pair.lose = lose_all
    pair.advance(REKEY_TIMEOUT)
    pair.a.want()
    pair.a.sessions.start_over()

    assert len(pair.a.sessions._indices) == 0
    assert pair.a.sessions.next_deadline() == math.inf


def test_wanting_an_unknown_peer_does_nothing(pair):
    assert pair.a.sessions.want(7, START) == []


# Wiping


def test_all_keys_are_wiped_three_reject_times_after_the_last_handshake(pair):
    pair.handshake()
    pair.advance(3 * REJECT_AFTER_TIME - 0.1)
    assert not pair.a.of(Wipe)

    pair.advance(0.1)
    assert pair.a.outputs[-1] == Wipe(1)
    assert pair.b.outputs[-1] == Wipe(1)
    assert len(pair.a.sessions._indices) == 0
    assert pair.a.sessions.next_deadline() == math.inf


def test_a_later_handshake_puts_the_wipe_off(pair):
    pair.handshake()
    pair.advance(500)
    pair.handshake()
    pair.advance(500)

    assert not pair.a.of(Wipe)


def test_an_attempt_under_way_outlives_the_wipe(pair):
    pair.handshake()
    pair.advance(3 * REJECT_AFTER_TIME - 2)
    pair.lose = lose_all
    pair.a.want()
    pair.advance(3)
    assert pair.a.of(Wipe)

    pair.lose = lambda flight: False
    pair.advance(LONGEST_WAIT)
    assert pair.is_connected()


# Cookies


def test_a_responder_under_load_is_reached_at_the_retry_with_its_cookie(pair):
    pair.b.is_loaded = True
    pair.a.want()
    pair.settle()
    assert len(pair.a.of(Transmit)) == 1
    assert not pair.is_connected()

    pair.advance(LONGEST_WAIT)
    assert pair.is_connected()
    assert pair.a.refused == []


def test_a_cookie_reply_from_somebody_else_changes_nothing(pair):
    pair.lose = lose_all
    pair.a.want()
    sender = pair.flights[0].datagram[4:8]
    forged = CookieReply(int.from_bytes(sender, "little"), bytes(24), bytes(32)).build()
    pair.deliver(Flight(("203.0.113.9", 9), pair.a.address, forged))
    pair.advance(LONGEST_WAIT)

    assert pair.a.refused == ["cookie_seal"]
    assert pair.a.of(Transmit)[1].datagram[-16:] == bytes(16)


def test_a_cookie_for_a_response_is_kept_for_the_next_message(pair):
    pair.a.is_loaded = True
    pair.a.want()
    pair.settle()
    assert not pair.a.keypairs

    pair.advance(LONGEST_WAIT)
    assert pair.is_connected()


def test_a_cookie_reply_to_an_unknown_index_is_refused(pair):
    with refused("cookie_index"):
        pair.a.sessions.receive(CookieReply(1, bytes(24), bytes(32)).build(), pair.b.address, START)


# Peers


def test_a_peer_not_known_is_refused(pair):
    pair.b.sessions.remove_peer(1)
    pair.a.want()
    pair.settle()

    assert pair.b.refused == ["initiation_unknown_peer"]


def test_a_removed_peer_is_wiped_and_its_indices_are_free(pair):
    pair.handshake()

    assert pair.a.sessions.remove_peer(1) == [Wipe(1)]
    assert len(pair.a.sessions._indices) == 0
    assert pair.a.sessions.next_deadline() == math.inf
    assert pair.a.sessions.remove_peer(1) == []


def test_removing_a_peer_overwrites_its_preshared_key():
    pair = Pair(psk_a=b"p" * 32)
    secret = pair.a.sessions._by_number[1]._preshared_key
    pair.a.sessions.remove_peer(1)

    assert secret == bytes(32)


def test_a_peer_removed_and_added_again_shakes_hands_anew(pair):
    pair.handshake()
    pair.a.sessions.remove_peer(1)
    pair.a.know(1, pair.b)
    pair.clock.advance(1)
    pair.a.want()
    pair.settle()

    assert pair.is_connected()


def test_a_node_is_not_its_own_peer(pair):
    with pytest.raises(ValueError, match="cannot be its own peer"):
        pair.a.sessions.add_peer(2, pair.a.key.public)


@pytest.mark.parametrize(
    ("number", "public_key", "psk"),
    [(1, b"x" * 32, None), (2, "b", None), (2, b"x" * 31, None), (2, b"x" * 32, b"p" * 31)],
    ids=["number taken", "key taken", "short key", "short preshared key"],
)
def test_a_peer_that_cannot_be_added_changes_nothing(pair, number, public_key, psk):
    before = snapshot(pair.a.sessions)
    with pytest.raises(ValueError):  # noqa: PT011  each text says another thing
        pair.a.sessions.add_peer(number, pair.b.key.public if public_key == "b" else public_key, psk)

    assert snapshot(pair.a.sessions) == before


@pytest.mark.parametrize("point", vectors("crypto")["low_order"]["points"])
def test_nothing_is_ever_sent_to_a_peer_whose_key_is_of_low_order(pair, point):
    pair.a.sessions.add_peer(2, bytes.fromhex(point))

    assert pair.a.sessions.want(2, START) == []
    assert pair.a.sessions.next_deadline() == math.inf
    assert not pair.a.sessions.status(2).is_running


def test_an_initiation_that_claims_a_key_of_low_order_is_refused(pair):
    # Anybody can seal such a key; DH with it gives zeros, which everybody knows.
    pair.a.sessions.add_peer(2, bytes(32))
    forged = _initiation_of_nobody(pair.a.key.public)

    with refused("low_order_point"):
        pair.a.sessions.receive(forged, pair.b.address, START)


def _initiation_of_nobody(receiver):
    from tests.overlay.crypto import models as slow

    ephemeral = os.urandom(32)
    public = slow.slow_public(ephemeral)
    c = slow.slow_hash(b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s")
    h = slow.slow_hash(slow.slow_hash(c + b"WireGuard v1 zx2c4 Jason@zx2c4.com") + receiver)
    (c,) = slow.slow_kdf(1, c, public)
    h = slow.slow_hash(h + public)
    c, k = slow.slow_kdf(2, c, slow.slow_dh(ephemeral, receiver))
    static = slow.slow_seal(k, bytes(32), h)
    h = slow.slow_hash(h + static)
    c, k = slow.slow_kdf(2, c, bytes(32))
    stamp = slow.slow_seal(k, b"\x40" + bytes(11), h)
    body = b"\1\0\0\0" + bytes(4) + public + static + stamp
    return body + slow.slow_mac1(receiver, body) + bytes(16)


# Indices


def test_a_retired_keypair_frees_its_index(pair):
    mine, _ = pair.handshake()
    pair.a.sessions.retired(mine.local_index)
    pair.a.sessions.retired(mine.local_index)

    assert len(pair.a.sessions._indices) == 0


def test_a_forwarder_that_tells_of_no_keypair_it_forgets_costs_no_more_than_some_indices(pair):
    for _ in range(3 * KEYPAIRS):
        last = pair.handshake()
        pair.clock.advance(REKEY_TIMEOUT)

    for node, keypair in zip((pair.a, pair.b), last, strict=True):
        assert len(node.sessions._indices) == KEYPAIRS
        assert node.sessions._indices.owner(keypair.local_index) is not None


def test_an_index_of_a_running_handshake_is_not_retired(pair):
    pair.a.want()
    (index,) = pair.a.sessions._indices._owners
    pair.a.sessions.retired(index)
    pair.settle()

    assert pair.is_connected()


def test_retries_keep_one_index(pair):
    pair.lose = lose_all
    pair.a.want()
    pair.advance(60)

    assert len(pair.a.sessions._indices) == 1


# Status


def test_status_before_during_and_after_a_handshake(pair):
    before = pair.a.sessions.status(1)
    pair.lose = lose_all
    pair.a.want()
    pair.advance(LONGEST_WAIT)
    during = pair.a.sessions.status(1)
    pair.lose = lambda flight: False
    pair.advance(2 * LONGEST_WAIT)
    after = pair.a.sessions.status(1)

    assert (before.is_running, before.retries, before.completed_at) == (False, 0, None)
    assert (during.is_running, during.retries, during.completed_at) == (True, 1, None)
    assert not after.is_running
    assert after.completed_at == next(iter(pair.a.keypairs.values())).created


# Any number of peers


def test_ten_thousand_peers_are_added_without_computing_their_secrets(pair):
    for number in range(2, 10_002):
        pair.a.sessions.add_peer(number, os.urandom(32))

    assert not pair.a.sessions._by_number[500]._acquaintance._secrets
    assert pair.a.sessions.next_deadline() == math.inf


def test_deadlines_of_many_peers_are_met_in_turns(pair):
    pair.lose = lose_all
    count = 3 * DUE_AT_ONCE
    for number in range(2, count + 2):
        pair.a.sessions.add_peer(number, _public((number << 8).to_bytes(32, "little")))
        pair.a.sessions.want(number, START)
    now = START + LONGEST_WAIT

    first = pair.a.sessions.handle_deadline(now)
    due_then = pair.a.sessions.next_deadline()
    rest = pair.a.sessions.handle_deadline(now) + pair.a.sessions.handle_deadline(now)

    assert len(first) == 2 * DUE_AT_ONCE
    assert due_then <= now
    assert {output.peer for output in first + rest} == set(range(2, count + 2))
    assert pair.a.sessions.next_deadline() > now


# Cookie replies are distinguished from handshakes


def test_a_cookie_reply_installs_nothing(pair):
    pair.b.is_loaded = True
    pair.a.want()
    pair.deliver(pair.flights.pop())
    (reply,) = pair.flights

    assert reply.kind == TYPE_COOKIE_REPLY
    assert pair.a.sessions.receive(reply.datagram, reply.source, START) == []
