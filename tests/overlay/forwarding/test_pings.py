from __future__ import annotations

from types import SimpleNamespace

import pytest

from overlay.errors import PacketError
from overlay.forwarding.pings import PONGS_AT_ONCE, PONGS_PER_SECOND, Pings
from overlay.link.messages import PINGS_WAITING, PingPeer, Ponged
from overlay.wire import control
from overlay.wire.control import Ping, Pong
from tests.overlay.session.pair import seeded


def keypair(index=1, peer=1, *, answers=True):
    return SimpleNamespace(
        local_index=index, peer=SimpleNamespace(number=peer), bulk=SimpleNamespace(answers_pings=answers)
    )


@pytest.fixture
def pings():
    return Pings(seeded("pings"))


def send(pings, request=1, under=None, now=0.0):
    """Send a ping and return its identifier."""
    return control.parse(pings.ping(PingPeer(1, request), under or keypair(), now)).identifier


def refusal(act, *arguments):
    with pytest.raises(PacketError) as raised:
        act(*arguments)
    return raised.value.reason


# Pings of this node


def test_the_pong_tells_the_round_trip(pings):
    identifier = send(pings, request=7, now=10.0)

    assert pings.take(Pong(identifier), keypair(), 10.25) == Ponged(1, 7, 0.25)


def test_pongs_are_told_apart_in_any_order(pings):
    one, other = send(pings, 1, now=1.0), send(pings, 2, now=2.0)

    assert pings.take(Pong(other), keypair(), 3.0) == Ponged(1, 2, 1.0)
    assert pings.take(Pong(one), keypair(), 3.0) == Ponged(1, 1, 2.0)


def test_a_second_pong_is_refused(pings):
    identifier = send(pings)
    pings.take(Pong(identifier), keypair(), 1.0)

    assert refusal(pings.take, Pong(identifier), keypair(), 2.0) == "pong_unexpected"


def test_a_pong_that_nobody_asked_for_is_refused(pings):
    identifier = send(pings)

    assert refusal(pings.take, Pong(identifier ^ 1), keypair(), 1.0) == "pong_unexpected"


def test_a_pong_under_another_keypair_is_refused_and_takes_nothing(pings):
    identifier = send(pings, under=keypair(1))

    assert refusal(pings.take, Pong(identifier), keypair(2, peer=2), 1.0) == "pong_unexpected"
    assert pings.take(Pong(identifier), keypair(1), 1.0) == Ponged(1, 1, 1.0)


@pytest.mark.parametrize(
    "under", [None, SimpleNamespace(bulk=None), keypair(answers=False)], ids=["none", "plain", "says no"]
)
def test_who_has_not_said_that_it_answers_is_not_pinged(pings, under):
    assert pings.ping(PingPeer(1, 1), under, 0.0) is None


def test_the_newest_wait_when_they_are_too_many(pings):
    sent = [send(pings, number) for number in range(PINGS_WAITING + 1)]

    assert refusal(pings.take, Pong(sent[0]), keypair(), 1.0) == "pong_unexpected"
    assert [pings.take(Pong(each), keypair(), 1.0).identifier for each in sent[1:]] == [
        *range(1, PINGS_WAITING + 1)
    ]


# Pings of others


def test_a_ping_is_answered_with_its_identifier(pings):
    assert control.parse(pings.pong(Ping(2**64 - 1), keypair(), 0.0)) == Pong(2**64 - 1)


def test_a_flood_is_answered_at_a_bounded_rate(pings):
    def answered(until):
        count = 0
        for _ in range(5000):
            try:
                pings.pong(Ping(1), keypair(), until)
            except PacketError as error:
                assert error.reason == "ping_rate"  # noqa: PT017  it is counted how often
            else:
                count += 1
        return count

    assert answered(0.0) == PONGS_AT_ONCE
    assert answered(0.02) == pytest.approx(PONGS_PER_SECOND * 0.02, abs=1)


def test_a_flood_of_one_peer_costs_no_other_its_answer(pings):
    for _ in range(PONGS_AT_ONCE):
        pings.pong(Ping(1), keypair(), 0.0)

    assert refusal(pings.pong, Ping(1), keypair(), 0.0) == "ping_rate"
    assert pings.pong(Ping(1), keypair(peer=2), 0.0)
