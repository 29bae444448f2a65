from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overlay.forwarding.keypair import Keypair, Keypairs
from overlay.forwarding.peer import Peer
from overlay.session.constants import Timing
from overlay.session.outputs import InstallKeypair


def made(index=1, *, is_initiator, created=1000.0):
    return Keypair(
        Peer(1),
        InstallKeypair(1, index, 9, b"s" * 32, b"r" * 32, is_initiator, created, ("192.0.2.1", 1)),
        Timing(),
    )


def test_an_initiator_s_keypair_knows_its_moments():
    keypair = made(is_initiator=True)

    assert (keypair.rekey_at, keypair.rekey_receive_at, keypair.reject_at) == (1120, 1165, 1180)


def test_a_responder_s_keypair_is_never_renewed_by_time():
    keypair = made(is_initiator=False)

    assert (keypair.rekey_at, keypair.rekey_receive_at, keypair.reject_at) == (math.inf, math.inf, 1180)


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
        ([R, I], [1, 2, None], []),
        ([I, R, I], [2, 3, None], [1]),
        ([I, I, R, I], [3, 4, None], [1, 2]),
    ],
)
def test_the_slots_move_as_the_whitepaper_says(steps, expected, gone):
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


@pytest.mark.parametrize(("own", "loses"), [(8, True), (10, False)])
def test_of_two_that_crossed_that_of_the_smaller_initiator_s_index_stays(own, loses):
    keypairs = Keypairs()
    keypairs.install(made(1, is_initiator=False))  # its initiator's index, the remote one, is 9
    keypairs.install(made(own, is_initiator=True))

    assert keypairs.loses_crossing() is loses


@pytest.mark.parametrize(
    ("first", "then", "pause"),
    [(I, R, 0), (I, R, 1), (R, I, 6), (R, R, 0)],
    ids=["the peer begins anew at once", "a second later", "long apart", "it begins twice"],
)
def test_what_did_not_cross_is_used_as_soon_as_the_peer_does(first, then, pause):
    keypairs = Keypairs()
    keypairs.install(made(1, is_initiator=first == I))
    keypairs.install(made(2, is_initiator=then == I, created=1000.0 + pause))

    assert not keypairs.loses_crossing()


def test_a_later_handshake_ends_a_crossing():
    keypairs = Keypairs()
    keypairs.install(made(1, is_initiator=False))
    keypairs.install(made(2, is_initiator=True))
    keypairs.install(made(3, is_initiator=False))

    assert not keypairs.loses_crossing()


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
    """Handshakes that crossed leave a keypair for each direction; packets were lost when its receiver dropped it."""
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
        keypairs.install(made(index, is_initiator=is_initiator))

    gone = keypairs.clear()

    assert sorted(each.local_index for each in gone) == [1, 2]
    assert slots(keypairs) == [None, None, None]


@settings(deadline=None, derandomize=True)
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
