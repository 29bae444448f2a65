from __future__ import annotations

import pytest

from overlay.forwarding.awaited import AWAITED, AWAITED_TIME, Awaited
from overlay.wire.messages import (
    COOKIE_REPLY,
    INITIATION,
    RESPONSE,
    TYPE_COOKIE_REPLY,
    TYPE_INITIATION,
    TYPE_RESPONSE,
)

NOW = 1000.0


def message(kind, index):
    """Return a message of *kind* that names the initiation *index*."""
    at, size = {
        TYPE_INITIATION: (4, INITIATION.size),
        TYPE_RESPONSE: (8, RESPONSE.size),
        TYPE_COOKIE_REPLY: (4, COOKIE_REPLY.size),
    }[kind]
    made = bytearray(size)
    made[0], made[at : at + 4] = kind, index.to_bytes(4, "little")
    return bytes(made)


@pytest.fixture
def awaited():
    made = Awaited()
    made.sent(message(TYPE_INITIATION, 7), NOW)
    return made


@pytest.mark.parametrize("kind", [TYPE_RESPONSE, TYPE_COOKIE_REPLY])
def test_the_first_answer_of_a_kind_is_awaited_and_no_second(awaited, kind):
    answers = [awaited.take(kind, message(kind, 7), NOW + 0.1) for _ in range(2)]

    assert answers == [True, False]


def test_a_response_after_a_cookie_is_awaited_too(awaited):
    assert awaited.take(TYPE_COOKIE_REPLY, message(TYPE_COOKIE_REPLY, 7), NOW)
    assert awaited.take(TYPE_RESPONSE, message(TYPE_RESPONSE, 7), NOW)


def test_an_answer_to_another_index_is_not_awaited(awaited):
    assert not awaited.take(TYPE_RESPONSE, message(TYPE_RESPONSE, 8), NOW)


def test_an_initiation_is_never_awaited(awaited):
    assert not awaited.take(TYPE_INITIATION, message(TYPE_INITIATION, 7), NOW)


def test_an_answer_is_awaited_for_a_while(awaited):
    assert not awaited.take(TYPE_RESPONSE, message(TYPE_RESPONSE, 7), NOW + AWAITED_TIME)


def test_what_is_no_initiation_asks_for_no_answer():
    awaited = Awaited()
    for sent in (message(TYPE_RESPONSE, 7), message(TYPE_INITIATION, 7)[:-1], b"", b"\1"):
        awaited.sent(sent, NOW)

    assert not awaited._sent


def test_initiations_are_remembered_in_bounds(awaited):
    for index in range(100, 100 + AWAITED):
        awaited.sent(message(TYPE_INITIATION, index), NOW + 1)
    assert len(awaited._sent) == AWAITED
    assert not awaited.take(TYPE_RESPONSE, message(TYPE_RESPONSE, 7), NOW + 1)

    awaited.sent(message(TYPE_INITIATION, 8), NOW + 1 + AWAITED_TIME)
    assert len(awaited._sent) == 1
