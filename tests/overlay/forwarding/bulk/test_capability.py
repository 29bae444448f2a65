from __future__ import annotations

import pytest
from cryptography.exceptions import InvalidTag

from overlay.forwarding.bulk.capability import LATE, Bulk
from overlay.wire import control
from overlay.wire.bulk import AES_256_GCM, CHACHA20_POLY1305, MAXIMUM_FRAGMENTS, MAXIMUM_SEALED
from overlay.wire.control import Hello, Report

BOTH = (AES_256_GCM, CHACHA20_POLY1305)


def keys(salt):
    """Return unit keys of both ciphers, those to send with and those to receive with."""
    return [(cipher, bytes([salt, cipher] * 16), bytes([1 - salt, cipher] * 16)) for cipher in BOTH]


def bulk(ciphers=BOTH, packet=1420, salt=0):
    return Bulk(keys(salt), ciphers, 7, packet)


def hello(ciphers=BOTH, *, is_answer=False, unit=MAXIMUM_SEALED, fragments=MAXIMUM_FRAGMENTS, packet=1420):
    return Hello(
        tuple(ciphers), unit, fragments, packet, is_answer=is_answer, answers_pings=True, answers_probes=True
    )


def take(one, message, now=0.0):
    """Let *one* receive a hello; return its answer as the other end reads it."""
    answer = one.take_hello(message, now)
    return answer and control.parse(answer)


# Hellos


def test_a_hello_says_what_we_take():
    assert control.parse(bulk(packet=8920).offer(0.0)) == hello(packet=8920)


def test_a_hello_is_offered_after_0_1_and_5_seconds_and_never_again():
    one = bulk()

    offered = [now / 10 for now in range(1000) if one.offer(now / 10)]

    assert offered == [0, 1, 5]


def test_a_hello_waits_for_a_super_packet_to_carry():
    one = bulk()

    assert [bool(one.offer(now)) for now in (100, 100.5, 130, 131, 200)] == [True, False, True, True, False]


def test_two_hellos_are_enough():
    one, other = bulk(), bulk(salt=1)

    answer = take(other, control.parse(one.offer(0.0)))
    assert answer == hello(is_answer=True)
    assert take(one, answer) is None

    assert one.offer(1.0) is other.offer(1.0) is None
    assert one.key is not None
    assert other.key is not None


def test_who_has_heard_a_hello_offers_none():
    one = bulk()
    take(one, hello(is_answer=True))

    assert one.offer(0.0) is None


def test_hellos_that_cross_are_answered_both():
    one, other = bulk(), bulk(salt=1)
    first, second = control.parse(one.offer(0.0)), control.parse(other.offer(0.0))

    assert take(one, second).is_answer
    assert take(other, first).is_answer


def test_a_hello_said_again_is_answered_again_three_times_in_all():
    one = bulk()

    answers = [take(one, hello()) for _ in range(5)]

    assert answers == [hello(is_answer=True)] * 3 + [None] * 2


def test_a_hello_that_was_answered_tells_the_round_trip():
    one = bulk()
    one.offer(10.0)

    take(one, hello(is_answer=True), 10.3)

    assert one.size.round_trip == pytest.approx(0.3)


def test_an_answer_to_one_of_two_hellos_tells_no_round_trip():
    one = bulk()
    one.offer(10.0)
    one.offer(11.0)

    take(one, hello(is_answer=True), 11.01)

    assert one.size.round_trip == 0


def test_a_hello_that_crossed_ours_tells_no_round_trip():
    one = bulk()
    one.offer(10.0)

    take(one, hello(), 10.01)

    assert one.size.round_trip == 0


# Agreement


@pytest.mark.parametrize(
    ("ours", "theirs", "chosen"),
    [
        (BOTH, BOTH, AES_256_GCM),
        (BOTH, BOTH[::-1], AES_256_GCM),
        (BOTH[1:], BOTH, CHACHA20_POLY1305),
        (BOTH, BOTH[1:], CHACHA20_POLY1305),
        (BOTH[1:], BOTH[:1], None),
        (BOTH, (), None),
    ],
)
def test_the_sender_takes_the_first_of_its_ciphers_that_the_receiver_has(ours, theirs, chosen):
    one = bulk(ours)

    take(one, hello(theirs))

    assert (one.key and one.key.cipher) == chosen
    assert one.key is None or one.key.receiver_index == 7


def test_who_can_take_nothing_from_us_hears_what_we_take_all_the_same():
    assert take(bulk(), hello(())) == hello(is_answer=True)


def test_the_first_hello_of_a_keypair_stays():
    one = bulk()
    take(one, hello(unit=30_000, fragments=20, packet=1300))
    key = one.key

    take(one, hello(BOTH[1:], unit=9, fragments=9, packet=9))

    assert (one.most, one.fragments, one.packet, one.key) == (30_000, 20, 1300, key)


def test_each_way_has_a_key_of_its_own():
    one, other = bulk(), bulk(salt=1)
    take(one, hello())
    plain, sealed = bytearray(b"super-packet"), bytearray(28)
    one.key.seal(bytes(12), plain, None, sealed)

    opened = bytearray(12)
    other.ciphers.opener(AES_256_GCM)(bytes(12), sealed, None, opened)

    assert opened == plain
    with pytest.raises(InvalidTag):
        one.ciphers.opener(AES_256_GCM)(bytes(12), sealed, None, opened)


def test_units_of_a_cipher_we_do_not_use_cannot_be_opened():
    assert bulk(BOTH[1:]).ciphers.opener(AES_256_GCM) is None
    assert bulk().ciphers.opener(3) is None


# Reports


def report(one, now=100.0):
    told = one.report(now)
    return told and control.parse(told)


def deliver(one, *counters, fragments=10):
    for counter in counters:
        assert one.window.accept(counter)
        one.delivered(counter, fragments, 100.0)


def test_nothing_new_is_not_reported():
    one = bulk()
    assert one.report(100.0) is None
    deliver(one, 0)
    one.report(100.0)

    assert one.report(100.0) is None


def test_a_report_tells_of_all_that_came_since_the_beginning():
    one = bulk()
    deliver(one, 0, 1, 2, 3)
    report(one)
    one.missing = 5
    deliver(one, 7, 8, 9, 10, 11)

    assert report(one) == Report(newest=12, units=9, datagrams=90, missing=5)


def test_a_unit_that_was_overtaken_is_not_missing_before_four_others_have_come():
    one = bulk()
    deliver(one, 0, 1, 3)
    assert report(one) == Report(2, 2, 30, 0)
    deliver(one, 4, 5)
    assert report(one) == Report(2, 2, 50, 0)

    deliver(one, 6)

    assert report(one) == Report(7, 6, 60, 0)


def test_a_unit_that_was_overtaken_is_missing_when_it_has_not_come_for_a_while():
    one = bulk()
    deliver(one, 0, 2)

    assert report(one, 100.0 + LATE) == Report(3, 2, 20, 0)


def test_a_unit_that_came_late_is_reported_after_all():
    one = bulk()
    deliver(one, 0, 1, 3)
    report(one)

    deliver(one, 2)

    assert report(one) == Report(4, 4, 40, 0)


def test_the_first_unit_of_all_may_be_overtaken_too():
    one = bulk()
    deliver(one, 1, 2)
    assert report(one) == Report(0, 0, 20, 0)

    deliver(one, 0)

    assert report(one) == Report(3, 3, 30, 0)


@pytest.mark.parametrize(("pings", "probes"), [(True, False), (False, True)])
def test_what_a_peer_answers_is_what_its_first_hello_says(pings, probes):
    one = bulk()
    assert not any([one.has_heard, one.answers_pings, one.answers_probes])

    take(one, Hello(BOTH, 9000, 64, 1420, is_answer=True, answers_pings=pings, answers_probes=probes))
    take(one, hello())

    assert (one.answers_pings, one.answers_probes) == (pings, probes)


def test_a_hello_is_said_once_it_was_offered_or_answered():
    offers, answers = bulk(), bulk()
    assert not offers.has_said_hello

    offers.offer(0.0)
    take(answers, hello())

    assert offers.has_said_hello
    assert answers.has_said_hello


@pytest.mark.parametrize(
    ("theirs", "headers", "link", "expected"),
    [
        ({}, 40, 0, 3),
        ({"fragments": 2}, 40, 0, 1),  # the headers leave no room for two
        ({"packet": 1399}, 40, 0, 0),  # none that the peer would take
        ({"packet": 1400}, 40, 14, 3),  # the link's header is not part of the packet
        ({"ciphers": ()}, 40, 0, 0),
        ({"fragments": 2}, 28, 0, 2),
        ({"fragments": 2}, 28, 14, 1),  # and is in the unit
    ],
)
def test_units_have_as_many_segments_as_the_peer_takes(theirs, headers, link, expected):
    one = bulk()
    assert one.most_segments(1400, headers, 1360, link, 0.0) == 0, "the peer has not said hello"
    take(one, hello(**theirs))
    one.size.limit = 3

    assert one.most_segments(1400, headers, 1360, link, 0.0) == expected


def test_there_is_no_unit_while_the_size_allows_none():
    one = bulk()
    take(one, hello())
    one.size.limit = 0

    assert one.most_segments(1400, 40, 1360, 0, 0.0) == 0


def test_there_is_no_unit_while_nothing_is_reported_of_units():
    one = bulk()
    take(one, hello())
    for silence in range(2):
        one.size.silence(float(silence))
    assert one.size.is_plain
    assert one.size.limit

    assert one.most_segments(1400, 40, 1360, 0, 1.0) == 0
