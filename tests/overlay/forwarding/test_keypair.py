from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.forwarding.bulk.asking import FIRST_PAUSE, LONGEST_PAUSE
from overlay.forwarding.keypair import GOES_OVER_WITHIN, Keypair, Keypairs
from overlay.forwarding.peer import LivePeer
from overlay.session.constants import Timing
from overlay.session.outputs import InstallKeypair
from overlay.wire.bulk import CIPHERS


def made(index=1, *, is_initiator, created=1000.0, initiated=None):
    """Return a keypair whose handshake took two seconds, if we initiated it."""
    if initiated is None:
        initiated = created - 2 if is_initiator else created
    keys = (b"s" * 32, b"r" * 32)
    install = InstallKeypair(1, index, 9, *keys, is_initiator, initiated, created, ("192.0.2.1", 1))
    return Keypair(LivePeer(1), install, Timing())


def test_an_initiator_s_keypair_knows_its_moments():
    keypair = made(is_initiator=True)

    assert (keypair.rekey_at, keypair.rekey_receive_at, keypair.reject_at) == (1120, 1165, 1180)


def test_lanes_send_by_what_is_theirs_and_by_the_keypair_itself_where_there_is_none():
    keypair, other = made(is_initiator=True), made(2, is_initiator=True)
    keypair.send_by([None, other])

    assert [keypair.of_lane(number) for number in range(4)] == [keypair, other, keypair, keypair]


def test_a_responder_s_keypair_is_never_renewed_by_time():
    keypair = made(is_initiator=False)

    assert (keypair.rekey_at, keypair.rekey_receive_at, keypair.reject_at) == (math.inf, math.inf, 1180)


def test_what_may_be_sent_with_is_current_and_within_its_time():
    keypairs = Keypairs()
    assert keypairs.usable(1000.0) is None

    keypair = made(is_initiator=True)
    keypairs.install(keypair)

    assert keypairs.usable(math.nextafter(1180.0, 0)) is keypair
    assert keypairs.usable(1180.0) is None


def slots(keypairs):
    return [each and each.local_index for each in (keypairs.previous, keypairs.current, keypairs.next)]


I, R, P = "initiator", "responder", "promote"  # noqa: E741  as the table below reads


@pytest.mark.parametrize(
    ("steps", "expected", "gone"),
    [
        ([], [None, None, None], []),
        ([I], [None, 1, None], []),
        ([I, I], [1, 2, None], []),
        ([I, I, I], [2, 3, None], [1]),
        ([R], [None, None, 1], []),
        ([R, P], [None, 1, None], []),
        ([R, R], [None, None, 2], [1]),
        ([R, P, R], [None, 1, 2], []),
        ([R, P, R, P], [1, 2, None], []),
        ([R, P, R, P, R], [None, 2, 3], [1]),
        ([I, I, R], [None, 2, 3], [1]),
        ([I, R], [None, 1, 2], []),
        ([I, R, P], [1, 2, None], []),
        ([R, I], [None, 2, 1], []),
        ([I, R, I], [1, 3, 2], []),
        ([I, I, R, I], [2, 4, 3], [1]),
        ([I, R, I, R], [None, 3, 4], [2, 1]),
    ],
)
def test_the_slots_move_as_the_whitepaper_says_but_what_waits_is_not_overtaken(steps, expected, gone):
    keypairs, index, left = Keypairs(), 0, []
    for step in steps:
        if step == P:
            left += keypairs.promote()
            continue
        index += 1
        left += keypairs.install(made(index, is_initiator=step == I, created=index * 120.0))

    assert slots(keypairs) == expected
    assert [each.local_index for each in left] == gone


@pytest.mark.parametrize("steps", [[R, I], [I, R]])
def test_after_handshakes_that_crossed_either_keypair_can_be_received_with(steps):
    keypairs = Keypairs()
    for number, step in enumerate(steps):
        keypairs.install(made(number, is_initiator=step == I, created=1000.0 + number))

    assert keypairs.current.is_initiator
    assert not keypairs.next.is_initiator


# The initiator's index of what the peer began is 9.
@pytest.mark.parametrize(("own", "stays"), [(8, True), (10, False)])
def test_of_two_that_crossed_that_of_the_smaller_initiator_s_index_stays(own, stays):
    keypairs = Keypairs()
    keypairs.install(made(1, is_initiator=False))
    keypairs.install(made(own, is_initiator=True, created=1001.0))

    assert keypairs.keeps_next_waiting(1001.0) is stays


@pytest.mark.parametrize(("own", "expected"), [(8, [1, 8, None]), (10, [None, 1, 10])])
def test_a_peer_that_was_heard_under_its_own_of_two_that_crossed_is_asked_over_or_followed(own, expected):
    """Before, each end stayed with its own: the peer's keepalive had arrived before its answer was taken."""
    keypairs = Keypairs()
    keypairs.install(made(1, is_initiator=False))
    keypairs.promote()
    keypairs.heard = keypairs.current
    keypairs.install(made(own, is_initiator=True, created=1001.0))

    assert slots(keypairs) == expected
    assert keypairs.next is None or keypairs.keeps_next_waiting(1001.0)


@pytest.mark.parametrize(
    ("first", "then", "pause"),
    [(I, R, 0.01), (I, R, 1), (R, R, 0)],
    ids=["the peer begins anew at once", "a second later", "it begins twice"],
)
def test_what_did_not_cross_is_used_as_soon_as_the_peer_does(first, then, pause):
    keypairs = Keypairs()
    keypairs.install(made(1, is_initiator=first == I))
    keypairs.install(made(2, is_initiator=then == I, created=1000.0 + pause))

    assert not keypairs.keeps_next_waiting(1001.0)


@pytest.mark.parametrize("index", [8, 10])
def test_what_the_peer_has_used_gives_way_to_what_we_began_later(index):
    keypairs = Keypairs()
    keypairs.install(made(1, is_initiator=False))
    keypairs.promote()

    keypairs.install(made(index, is_initiator=True, initiated=1000.1, created=1000.2))

    assert slots(keypairs) == [1, index, None]


@pytest.mark.parametrize("index", [8, 10])
def test_what_waits_is_received_with_and_no_more_when_a_newer_one_is_in_use(index):
    """Before, it was forgotten, and the peer, which received our initiation and our answer in reversed order, was not
    heard.
    """
    keypairs = Keypairs()
    keypairs.install(made(1, is_initiator=False))

    keypairs.install(made(index, is_initiator=True, initiated=1000.1, created=1000.2))

    assert slots(keypairs) == [None, index, 1]
    assert keypairs.keeps_next_waiting(1001.0)


# Each end believes that the other switches to its own: an answer overtook an initiation, and to one end they did not
# cross.
@pytest.mark.parametrize(("index", "goes_over"), [(8, False), (10, True)])
def test_of_two_that_stay_in_use_the_end_goes_over_that_has_the_greater_initiator_s_index(index, goes_over):
    keypairs = Keypairs()
    keypairs.install(made(1, is_initiator=False))
    keypairs.install(made(index, is_initiator=True, initiated=1000.1, created=1000.2))
    end = 1000.2 + GOES_OVER_WITHIN

    assert keypairs.keeps_next_waiting(math.nextafter(end, 0))
    assert keypairs.keeps_next_waiting(end) is not goes_over


@pytest.mark.parametrize(("index", "goes_over"), [(8, False), (10, True)])
def test_one_that_was_used_before_is_taken_again_likewise(index, goes_over):
    keypairs = Keypairs()
    keypairs.install(made(1, is_initiator=False))
    keypairs.promote()
    keypairs.install(made(index, is_initiator=True, initiated=1000.1, created=1000.2))
    end = 1000.2 + GOES_OVER_WITHIN

    keypairs.follow(keypairs.previous, math.nextafter(end, 0))
    assert slots(keypairs) == [1, index, None]

    keypairs.follow(keypairs.previous, end)
    assert slots(keypairs) == ([index, 1, None] if goes_over else [1, index, None])


@pytest.mark.parametrize("is_initiator", [False, True])
def test_one_of_another_time_is_not_taken_again(is_initiator):
    """What the peer has in flight while a session is renewed."""
    keypairs = Keypairs()
    keypairs.install(made(1, is_initiator=is_initiator))
    keypairs.heard = keypairs.current
    keypairs.install(made(10, is_initiator=True, created=1000.0 + GOES_OVER_WITHIN))

    keypairs.follow(keypairs.previous or keypairs.next, 1100.0)

    assert keypairs.current.local_index == 10


def test_a_keypair_has_settled_when_nothing_can_move_any_more():
    keypairs = crossed_and_promoted(10)
    end = 1001.0 + GOES_OVER_WITHIN

    assert keypairs.has_settled(keypairs.current, 1001.0)
    assert not keypairs.has_settled(keypairs.previous, math.nextafter(end, 0))
    assert keypairs.has_settled(keypairs.previous, end)


@pytest.mark.parametrize("end", ["install", "promote", "follow", "clear"])
def test_what_moves_keypairs_has_the_next_message_looked_at(end):
    keypairs = crossed_and_promoted(10)
    if end == "promote":
        keypairs.install(made(3, is_initiator=False, created=1120.0))
    keypairs.settled = keypairs.current

    if end == "install":
        keypairs.install(made(3, is_initiator=False, created=1120.0))
    elif end == "follow":
        keypairs.follow(keypairs.previous, 1001.0)
    else:
        getattr(keypairs, end)()

    assert keypairs.settled is None


def test_a_later_handshake_ends_a_crossing():
    keypairs = Keypairs()
    keypairs.install(made(1, is_initiator=False))
    keypairs.install(made(2, is_initiator=True, created=1001.0))
    keypairs.install(made(3, is_initiator=False, created=1002.0))

    assert not keypairs.keeps_next_waiting(1001.0)


def crossed_and_promoted(own):
    """Return keypairs of which the one that the peer initiated was heard after crossing handshakes."""
    keypairs = Keypairs()
    keypairs.install(made(1, is_initiator=False))
    keypairs.install(made(own, is_initiator=True, created=1001.0))
    keypairs.promote()
    return keypairs


def test_a_peer_that_does_not_know_that_handshakes_crossed_is_followed():
    keypairs = crossed_and_promoted(10)
    assert slots(keypairs) == [10, 1, None]

    keypairs.follow(keypairs.previous, 1001.0)

    assert slots(keypairs) == [1, 10, None]


def test_what_the_peer_sent_before_a_handshake_is_not_followed():
    keypairs = Keypairs()
    keypairs.install(made(10, is_initiator=True))
    keypairs.install(made(1, is_initiator=False, created=1001.0))
    keypairs.promote()

    keypairs.follow(keypairs.previous, 1001.0)

    assert slots(keypairs) == [10, 1, None]


def test_of_two_that_crossed_neither_is_forgotten_for_an_older_one():
    keypairs = Keypairs()
    keypairs.install(made(3, is_initiator=True, created=900.0))
    keypairs.heard = keypairs.current
    keypairs.install(made(1, is_initiator=False))
    keypairs.install(made(10, is_initiator=True, created=1001.0))

    gone = keypairs.promote()

    assert slots(keypairs) == [10, 1, None]
    assert [each.local_index for each in gone] == [3]


@pytest.mark.parametrize(
    "steps",
    [
        [(R, 0), (I, 0), "heard 1", (R, 120), (I, 120)],
        [(R, 0), (I, 0), "heard 1", (R, 120), P],
        [(R, 0), (I, 0), "heard 1", (I, 120)],
        [(R, 0), (I, 0), "heard 2", (I, 120)],
        [(R, 0), (I, 0), "heard 2", (R, 120), (I, 120)],
        [(I, 0), "heard 1", (R, 120), (I, 130)],
    ],
)
def test_what_the_peer_was_heard_under_last_outlives_the_next_handshake(steps):
    """Crossing handshakes leave a keypair for each direction; before, packets were lost when their
    receiver dropped it.
    """
    keypairs, keys, gone = Keypairs(), [], []
    for step in steps:
        if step == P:
            gone += keypairs.promote()
        elif isinstance(step, str):
            keypairs.heard = keys[int(step[-1]) - 1]
        else:
            keys.append(made(len(keys) + 1, is_initiator=step[0] == I, created=1000.0 + step[1]))
            gone += keypairs.install(keys[-1])

    assert keypairs.heard in {keypairs.previous, keypairs.current, keypairs.next}
    assert keypairs.heard not in gone


def test_clear_empties_every_slot():
    keypairs = Keypairs()
    for index, is_initiator in enumerate([True, True, False]):
        keypairs.install(made(index, is_initiator=is_initiator, created=1000.0 + index))

    gone = keypairs.clear()

    assert sorted(each.local_index for each in gone) == [1, 2]
    assert slots(keypairs) == [None, None, None]


@given(
    st.lists(st.sampled_from([I, R, P, "clear", "previous", "current", "next"]), max_size=20),
    st.integers(0, 10),
)
def test_a_keypair_is_in_a_slot_or_was_returned_once(steps, pause):
    keypairs, gone = Keypairs(), []
    count = 0
    for step in steps:
        if step in {"previous", "current", "next"}:
            keypairs.heard = getattr(keypairs, step) or keypairs.heard
            continue
        if step == P:
            if keypairs.next is not None:
                gone += keypairs.promote()
        elif step == "clear":
            gone += keypairs.clear()
        else:
            count += 1
            gone += keypairs.install(made(count, is_initiator=step == I, created=1000.0 + pause * count))
        assert keypairs.heard is None or keypairs.heard.local_index in slots(keypairs)

    left = [index for index in slots(keypairs) if index is not None]
    assert sorted(left + [each.local_index for each in gone]) == list(range(1, count + 1))


def test_a_new_keypair_seals_what_its_other_end_opens_from_the_first_counter_on():
    peer = LivePeer(1)
    install = InstallKeypair(
        1,
        5,
        9,
        b"s" * 32,
        b"r" * 32,
        is_initiator=True,
        initiated=1.0,
        created=2.0,
        endpoint=("192.0.2.1", 1),
    )
    keypair = Keypair(peer, install, Timing())
    theirs = Keypair(
        LivePeer(1), dataclasses.replace(install, send_key=b"r" * 32, receive_key=b"s" * 32), Timing()
    )
    sealed, opened = bytearray(4 + 16), bytearray(4)

    keypair.seal(bytes(12), b"text", None, sealed)
    theirs.open(bytes(12), sealed, None, opened)

    assert opened == b"text"
    assert (keypair.peer, keypair.counter, keypair.bulk) == (peer, 0, None)
    assert (keypair.local_index, keypair.remote_index, keypair.created) == (5, 9, 2.0)
    assert [keypair.window.accept(0) for _ in range(2)] == [True, False]


def test_with_ciphers_a_keypair_has_what_units_take():
    unit_keys = [(cipher, bytes([cipher]) * 32, bytes([cipher + 9]) * 32) for cipher in CIPHERS]
    install = InstallKeypair(
        1, 5, 9, b"s" * 32, b"r" * 32, is_initiator=True, initiated=1.0, created=2.0,
        endpoint=("192.0.2.1", 1), unit_keys=unit_keys,
    )  # fmt: skip

    bulk = Keypair(LivePeer(1), install, Timing(), CIPHERS, 1420).bulk

    assert bulk is not None
    assert bulk.told_packet == 1420
    assert bulk.ciphers._receiver_index == 9
    assert bulk.ciphers._keys == {cipher: (forth, back) for cipher, forth, back in unit_keys}


@pytest.mark.parametrize(
    ("began", "theirs", "ours", "have_crossed"),
    [
        (1.0, 2.0, 3.0, True),
        (1.0, 3.0, 3.0, True),  # both completed at one moment
        (2.0, 2.0, 3.0, False),  # theirs was complete when ours began
        (1.0, 4.0, 3.0, False),
    ],
)
def test_handshakes_crossed_if_theirs_was_completed_while_ours_was_under_way(
    began, theirs, ours, have_crossed
):
    mine = made(1, is_initiator=True, created=ours, initiated=began)
    other = made(2, is_initiator=False, created=theirs)

    assert mine.crossed(other) == have_crossed


def test_of_two_that_crossed_with_equal_indices_neither_gives_way():
    mine = made(9, is_initiator=True, created=1001.0)
    other = made(1, is_initiator=False)
    assert mine.crossed(other)

    assert not mine.yields_to(other)
    assert not other.yields_to(mine)


def test_what_is_in_use_is_kept_once_although_the_peer_was_heard_under_it():
    keypairs = Keypairs()
    keypairs.install(made(1, is_initiator=True))
    keypairs.heard = keypairs.current

    gone = keypairs.install(made(2, is_initiator=False, created=1120.0))

    assert slots(keypairs) == [None, 1, 2]
    assert gone == []


def test_of_two_that_the_peer_began_at_one_moment_the_second_is_used_as_soon_as_the_peer_does():
    keypairs = Keypairs()
    keypairs.install(made(1, is_initiator=False))
    keypairs.promote()
    keypairs.install(made(2, is_initiator=False))

    assert not keypairs.keeps_next_waiting(1001.0)


DAY = LONGEST_PAUSE
LAST = 7 * DAY  # when a peer that never answers was last asked


def never_answering():
    """Return a peer that was asked for days in vain, with a keypair made when it was last asked."""
    peer = LivePeer(1)
    for day in range(8):
        peer.asking.begin(day * DAY)
    peer.keypairs.install(made_with(peer, is_initiator=True, created=LAST))
    return peer


def made_with(peer, *, is_initiator, created, **how):
    keys = (b"s" * 32, b"r" * 32)
    install = InstallKeypair(1, 5, 9, *keys, is_initiator, created - 1, created, ("192.0.2.1", 1), **how)
    return Keypair(peer, install, Timing(), CIPHERS if how else ())


@pytest.mark.parametrize(
    ("is_initiator", "seconds", "is_asked"),
    [
        (False, 1.0, True),
        (False, 59.0, True),
        (False, 60.0, False),  # a keypair is renewed after 120 seconds; this far from it, it is no sign
        (False, 119.0, False),
        (True, 1.0, False),
    ],
)
def test_a_peer_whose_own_handshake_comes_long_before_one_is_due_is_asked_soon(
    is_initiator, seconds, is_asked
):
    peer = never_answering()

    made_with(peer, is_initiator=is_initiator, created=LAST + seconds)

    assert peer.asking.begin(LAST + FIRST_PAUSE) == is_asked


def test_a_first_keypair_is_no_sign_of_another_program():
    peer = never_answering()
    peer.keypairs.clear()

    made_with(peer, is_initiator=False, created=LAST + 1)

    assert peer.asking.begin(LAST + FIRST_PAUSE) == 0


def test_a_peer_that_was_asked_in_vain_is_not_asked_under_each_new_keypair():
    unit_keys = [(cipher, bytes(32), bytes(32)) for cipher in CIPHERS]

    keypair = made_with(never_answering(), is_initiator=True, created=LAST + 120, unit_keys=unit_keys)

    assert keypair.bulk.offer(LAST + 121) is None
