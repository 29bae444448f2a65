from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.crypto.cookies import COOKIE_TIME, CookieChecker, CookieHolder
from overlay.crypto.keys import PrivateKey
from overlay.wire.messages import CookieReply, Initiation
from tests.overlay.crypto.models import slow_mac, slow_mac1
from tests.refusals import refused

RESPONDER = PrivateKey(b"r" * 32)
SOURCE = bytes([192, 0, 2, 1]) + (51820).to_bytes(2, "big")
OTHER_SOURCE = bytes([192, 0, 2, 1]) + (51821).to_bytes(2, "big")
MESSAGE = Initiation(0x12345678, b"e" * 32, b"s" * 48, b"t" * 28).build()


def seeded(seed):
    count = 0

    def entropy(size):
        nonlocal count
        count += 1
        return hashlib.shake_256(f"{seed} {count}".encode()).digest(size)

    return entropy


@pytest.fixture
def checker():
    return CookieChecker(RESPONDER.public, seeded("checker"))


@pytest.fixture
def holder():
    return CookieHolder(RESPONDER.public)


def test_mac1_is_that_of_the_whitepaper(checker, holder):
    sent = holder.add_macs(MESSAGE, now=0.0)

    assert sent == MESSAGE[:-32] + slow_mac1(RESPONDER.public, MESSAGE[:-32]) + bytes(16)
    assert checker.check_mac1(sent)


@given(st.integers(0, (148 - 16) * 8 - 1))
def test_a_flipped_bit_fails_mac1(bit):
    checker, holder = CookieChecker(RESPONDER.public, seeded("checker")), CookieHolder(RESPONDER.public)
    sent = bytearray(holder.add_macs(MESSAGE, now=0.0))
    sent[bit // 8] ^= 1 << bit % 8

    assert not checker.check_mac1(sent)


@given(st.binary(max_size=200))
def test_any_bytes_have_a_mac_or_not(datagram):
    checker = CookieChecker(RESPONDER.public, seeded("checker"))

    assert checker.check_mac1(datagram) is False
    assert checker.check_mac2(datagram, SOURCE, 0.0) is False


def test_mac1_for_another_node_is_refused(checker):
    sent = CookieHolder(PrivateKey(b"x" * 32).public).add_macs(MESSAGE, now=0.0)

    assert not checker.check_mac1(sent)


def cookie_round(checker, holder, now):
    sent = holder.add_macs(MESSAGE, now)
    reply = CookieReply.parse(checker.make_reply(sent, SOURCE, now))
    holder.consume_reply(reply, now)
    return sent, reply


def test_a_cookie_makes_the_next_mac2_right(checker, holder):
    sent, reply = cookie_round(checker, holder, now=0.0)

    again = holder.add_macs(MESSAGE, now=1.0)

    assert reply.receiver_index == 0x12345678
    assert not checker.check_mac2(sent, SOURCE, 0.0)
    assert checker.check_mac2(again, SOURCE, 1.0)
    assert checker.check_mac1(again)


def test_mac2_is_keyed_by_the_cookie_for_the_source(checker, holder):
    cookie_round(checker, holder, now=0.0)
    secret = seeded("checker")(32)

    again = holder.add_macs(MESSAGE, now=1.0)

    assert again[-16:] == slow_mac(slow_mac(secret, SOURCE), again[:-16])


def test_a_cookie_is_good_for_its_own_source_only(checker, holder):
    cookie_round(checker, holder, now=0.0)

    assert not checker.check_mac2(holder.add_macs(MESSAGE, now=1.0), OTHER_SOURCE, 1.0)


def test_a_holder_stops_using_a_cookie_after_cookie_time(checker, holder):
    cookie_round(checker, holder, now=0.0)

    assert holder.add_macs(MESSAGE, now=COOKIE_TIME - 0.01)[-16:] != bytes(16)
    assert holder.add_macs(MESSAGE, now=COOKIE_TIME)[-16:] == bytes(16)


def test_a_checker_changes_its_secret_after_cookie_time(checker, holder):
    cookie_round(checker, holder, now=0.0)
    cookie_round(checker, holder, now=COOKIE_TIME - 1)
    sent = holder.add_macs(MESSAGE, now=COOKIE_TIME - 1)

    assert checker.check_mac2(sent, SOURCE, COOKIE_TIME - 1)
    assert not checker.check_mac2(sent, SOURCE, COOKIE_TIME)


def test_the_secret_is_another_one_after_cookie_time(checker, holder):
    cookie_round(checker, holder, now=0.0)
    old = holder.add_macs(MESSAGE, now=COOKIE_TIME - 1)
    cookie_round(checker, holder, now=COOKIE_TIME)
    new = holder.add_macs(MESSAGE, now=COOKIE_TIME)

    assert checker.check_mac2(new, SOURCE, COOKIE_TIME)
    assert not checker.check_mac2(old, SOURCE, COOKIE_TIME)


def test_no_secret_no_mac2(checker, holder):
    guessed = holder.add_macs(MESSAGE, now=0.0)[:-16]
    guessed += slow_mac(slow_mac(b"", SOURCE), guessed)

    assert not checker.check_mac2(guessed, SOURCE, 0.0)


def test_zeros_are_not_a_mac2(checker, holder):
    cookie_round(checker, holder, now=0.0)

    assert not checker.check_mac2(MESSAGE, SOURCE, 0.0)


def test_a_reply_to_an_earlier_message_is_refused(checker, holder):
    earlier = holder.add_macs(MESSAGE, now=0.0)
    holder.add_macs(MESSAGE[:8] + b"x" * 140, now=5.0)

    with refused("cookie_seal"):
        holder.consume_reply(CookieReply.parse(checker.make_reply(earlier, SOURCE, 5.0)), 5.0)

    assert holder.add_macs(MESSAGE, now=6.0)[-16:] == bytes(16)


def test_a_reply_is_taken_once(checker, holder):
    _, reply = cookie_round(checker, holder, now=0.0)

    with refused("cookie_unexpected"):
        holder.consume_reply(reply, 0.0)


def test_a_reply_to_nothing_is_refused(checker, holder):
    reply = CookieReply(0, bytes(24), bytes(32))

    with refused("cookie_unexpected"):
        holder.consume_reply(reply, 0.0)


@given(st.integers(8 * 8, 64 * 8 - 1))
def test_a_flipped_bit_of_a_reply_is_refused_and_a_good_one_still_taken(bit):
    checker, holder = CookieChecker(RESPONDER.public, seeded("checker")), CookieHolder(RESPONDER.public)
    reply = checker.make_reply(holder.add_macs(MESSAGE, now=0.0), SOURCE, 0.0)
    flipped = bytearray(reply)
    flipped[bit // 8] ^= 1 << bit % 8

    with refused("cookie_seal"):
        holder.consume_reply(CookieReply.parse(bytes(flipped)), 0.0)

    holder.consume_reply(CookieReply.parse(reply), 0.0)


def test_seeded_entropy_repeats_a_reply_byte_for_byte(holder):
    sent = holder.add_macs(MESSAGE, now=0.0)
    replies = {CookieChecker(RESPONDER.public, seeded("one")).make_reply(sent, SOURCE, 0.0) for _ in range(2)}

    assert len(replies) == 1


def test_a_wiped_holder_has_no_cookie(checker, holder):
    cookie_round(checker, holder, now=0.0)
    sent = holder.add_macs(MESSAGE, now=1.0)
    holder.wipe()

    with refused("cookie_unexpected"):
        holder.consume_reply(CookieReply.parse(checker.make_reply(sent, SOURCE, 1.0)), 1.0)
    assert holder.add_macs(MESSAGE, now=1.0)[-16:] == bytes(16)
