from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.crypto.cookies import CookieChecker
from overlay.crypto.keys import PrivateKey
from overlay.forwarding.admission import (
    COOKIES_WAITING,
    LINK_WAITING,
    MISDIRECTED_PAUSE,
    UNDER_LOAD_WAITING,
    Admission,
)
from overlay.reasons import Drops
from overlay.session.outputs import Transmit
from overlay.session.sessions import Sessions
from overlay.wire.messages import TYPE_COOKIE_REPLY, TYPE_INITIATION, TYPE_RESPONSE, message_type
from tests.overlay.session.pair import seeded

HERE = PrivateKey.generate(seeded("here"))
V4, V6 = ("192.0.2.1", 5000), ("2001:db8::1", 5000, 0, 0)
SOURCES = pytest.mark.parametrize(
    "source", [V4, V6, ("fe80::1%eth0", 5000, 0, 2)], ids=["IPv4", "IPv6", "scoped"]
)


class Caller:
    """A peer of HERE that makes real initiations."""

    def __init__(self, name="caller", to=HERE):
        key = PrivateKey.generate(seeded(name))
        self.public_key = key.public
        self.sessions = Sessions(key, entropy=seeded(name), wall_ns=lambda: 0)
        self.sessions.add_peer(1, to.public)
        self.at = 0.0

    def initiation(self):
        """Return a new initiation, with the cookie if there is one."""
        self.at = max(self.at + 6, self.sessions.next_deadline() if self.at else 0)
        outputs = self.sessions.want(1, self.at) or self.sessions.handle_deadline(self.at)
        return outputs[0].datagram


class Door:
    """A gate with its drops."""

    def __init__(self):
        self.admission, self.drops = Admission(HERE.public, seeded("gate")), Drops()

    def admit(self, datagram, source=V4, now=0.0):
        return self.admission.admit(message_type(datagram), datagram, source, now, self.drops)

    def load(self, now=0.0):
        """Keep the agent busy with handshakes of others."""
        caller = Caller("others").initiation()
        for _ in range(UNDER_LOAD_WAITING):
            assert self.admit(caller, ("198.51.100.1", 1), now)[0]


@pytest.fixture
def door():
    return Door()


def test_a_message_with_the_right_mac1_passes(door):
    assert door.admit(Caller().initiation()) == (True, None)
    assert door.drops == {}


def for_another_key():
    """Return an initiation that is not for HERE."""
    sessions = Sessions(PrivateKey.generate(seeded("x")), entropy=seeded("x"), wall_ns=lambda: 0)
    sessions.add_peer(1, PrivateKey.generate(seeded("somebody else")).public)
    return sessions.want(1, 0.0)[0].datagram


def test_of_messages_for_another_key_a_few_a_second_are_shown_to_the_agent_which_counts_them(door):
    datagram = for_another_key()
    passed = [door.admit(datagram, now=number / 64) for number in range(640)]

    assert passed.count((True, None)) == round(10 / MISDIRECTED_PAUSE)
    assert door.drops == {"mac1": passed.count((False, None))}


def test_under_load_no_message_for_another_key_is_shown(door):
    door.load()

    assert door.admit(for_another_key()) == (False, None)
    assert door.drops == {"mac1": 1}


def test_messages_for_another_key_that_the_agent_has_not_taken_are_load(door):
    datagram = for_another_key()
    passed = [door.admit(datagram, now=float(number))[0] for number in range(2 * UNDER_LOAD_WAITING)]

    assert sum(passed) <= UNDER_LOAD_WAITING
    assert door.admission.is_under_load(2.0 * UNDER_LOAD_WAITING)


def test_a_response_for_another_key_does_not_pass(door):
    assert door.admit(TYPE_RESPONSE.to_bytes(4, "little") + bytes(88)) == (False, None)
    assert door.drops == {"mac1": 1}


@pytest.mark.parametrize(
    ("kind", "size", "reason"),
    [
        (TYPE_INITIATION, 147, "initiation_size"),
        (TYPE_INITIATION, 149, "initiation_size"),
        (TYPE_RESPONSE, 148, "response_size"),
        (TYPE_RESPONSE, 4, "response_size"),
        (TYPE_COOKIE_REPLY, 65, "cookie_size"),
    ],
)
def test_a_message_of_the_wrong_size_does_not_pass(door, kind, size, reason):
    assert door.admit(kind.to_bytes(4, "little").ljust(size, b"x")) == (False, None)
    assert door.drops == {reason: 1}


@given(
    st.sampled_from([TYPE_INITIATION, TYPE_RESPONSE, TYPE_COOKIE_REPLY]),
    st.binary(max_size=160),
    st.booleans(),
)
def test_any_bytes_pass_or_are_counted(kind, rest, is_loaded):
    door = Door()
    if is_loaded:
        door.load()
    passed, reply = door.admit(kind.to_bytes(4, "little") + rest)

    assert reply is None
    assert passed != bool(door.drops)


# Under load


def test_a_node_is_under_load_while_the_agent_is_behind_and_a_second_longer(door):
    door.load(now=0.0)
    assert door.admission.is_under_load(5.0)
    door.admission.handled(1)

    assert door.admission.is_under_load(5.9)
    assert not door.admission.is_under_load(6.0)


@SOURCES
def test_under_load_a_message_without_a_cookie_is_answered_with_one(door, source):
    door.load()
    passed, reply = door.admit(Caller().initiation(), source)

    assert not passed
    assert message_type(reply) == TYPE_COOKIE_REPLY
    assert len(reply) == 64
    assert door.drops == {"handshake_under_load": 1}


@SOURCES
def test_with_the_cookie_it_passes(door, source):
    door.load()
    caller = Caller()
    _, reply = door.admit(caller.initiation(), source)
    caller.sessions.receive(reply, V4, caller.at)

    assert door.admit(caller.initiation(), source) == (True, None)


@pytest.mark.parametrize("other", [("192.0.2.2", 5000), ("192.0.2.1", 5001), V6])
def test_a_cookie_is_worth_nothing_at_another_address(door, other):
    door.load()
    caller = Caller()
    _, reply = door.admit(caller.initiation(), V4)
    caller.sessions.receive(reply, V4, caller.at)

    passed, reply = door.admit(caller.initiation(), other)

    assert not passed
    assert reply is not None


def test_a_cookie_lasts_120_seconds(door):
    door.load()
    caller = Caller()
    _, reply = door.admit(caller.initiation(), V4)
    caller.sessions.receive(reply, V4, caller.at)
    datagram = caller.initiation()

    assert door.admit(datagram, V4, 119.0)[0]
    assert not door.admit(datagram, V4, 121.0)[0]


def test_each_address_has_its_share_even_with_a_cookie(door):
    door.load()
    caller = Caller()
    _, reply = door.admit(caller.initiation(), V4)
    caller.sessions.receive(reply, V4, caller.at)
    datagram = caller.initiation()

    assert [door.admit(datagram, V4, 0.0)[0] for _ in range(7)] == [True] * 5 + [False] * 2
    assert door.admit(datagram, V4, 0.05)[0]
    assert door.drops["handshake_rate"] == 2


@pytest.mark.parametrize("form", ["2001:db8::{}", "2001:db8::{}00:0:0:1"])
def test_ipv6_addresses_share_by_their_64(door, form):
    door.load()
    passed = []
    for number in range(7):
        caller, source = Caller(number), (form.format(number + 1), 5000, 0, 0)
        _, reply = door.admit(caller.initiation(), source)
        caller.sessions.receive(reply, V4, caller.at)
        passed.append(door.admit(caller.initiation(), source)[0])

    assert passed == [True] * 5 + [False] * 2


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (V4, ("192.0.2.2", 5000)),
        (V6, ("2001:db8:0:1::1", 5000, 0, 0)),
        (V6, ("2002:db8::1", 5000, 0, 0)),
        (V4, V6),
    ],
)
def test_another_address_has_a_share_of_its_own(door, first, second):
    door.load()
    passed = []
    for source, count in ((first, 7), (second, 1)):
        caller = Caller(source[0])
        _, reply = door.admit(caller.initiation(), source)
        caller.sessions.receive(reply, V4, caller.at)
        datagram = caller.initiation()
        passed += [door.admit(datagram, source)[0] for _ in range(count)]

    assert passed == [True] * 5 + [False] * 2 + [True]


def test_every_message_that_is_refused_is_counted(door):
    door.load()
    datagram = Caller().initiation()
    forged = datagram[:-20] + bytes(20)
    for _ in range(3):
        door.admit(datagram[:-1])
        door.admit(forged)
        door.admit(datagram)

    assert door.drops == {"initiation_size": 3, "mac1": 3, "handshake_under_load": 3}


# A full link


def test_what_comes_when_the_link_is_full_is_dropped(door):
    door.load()
    caller = Caller()
    _, reply = door.admit(caller.initiation(), V4)
    caller.sessions.receive(reply, V4, caller.at)
    datagram = caller.initiation()
    now = 0.0
    for _ in range(LINK_WAITING - UNDER_LOAD_WAITING):
        now += 0.1
        assert door.admit(datagram, V4, now)[0]

    assert door.admit(datagram, V4, now + 0.1) == (False, None)
    assert door.drops["handshake_queue"] == 1
    door.admission.handled(1)
    assert door.admit(datagram, V4, now + 0.2)[0]


def test_forged_cookie_replies_do_not_fill_the_link(door):
    forged = TYPE_COOKIE_REPLY.to_bytes(4, "little") + bytes(60)

    passed = sum(door.admit(forged)[0] for _ in range(2000))

    assert passed == COOKIES_WAITING
    assert door.drops == {"handshake_queue": 2000 - COOKIES_WAITING}


def test_more_may_be_handled_than_was_let_through(door):
    door.admission.handled(100)
    door.load()

    assert door.admission.is_under_load(0.0)


# Expected answers


def answer_to(door, caller, initiation, now=0.0):
    """Let HERE call *caller* with *initiation*, and return the caller's response."""
    door.admission.sent(initiation.datagram, now)
    outputs = caller.sessions.receive(initiation.datagram, V4, now)
    return next(each.datagram for each in outputs if isinstance(each, Transmit))


class Here:
    """This node, which calls many."""

    def __init__(self, *callers):
        self.sessions = Sessions(HERE, entropy=seeded("here"), wall_ns=lambda: 0)
        for number, caller in enumerate(callers):
            self.sessions.add_peer(number, caller.public_key)

    def initiations(self, count):
        return [self.sessions.want(number, 0.0)[0] for number in range(count)]


def test_answers_to_this_nodes_own_calls_are_no_load(door):
    callers = [Caller(number) for number in range(2 * UNDER_LOAD_WAITING)]
    for caller, initiation in zip(callers, Here(*callers).initiations(len(callers)), strict=True):
        assert door.admit(answer_to(door, caller, initiation)) == (True, None)

    assert not door.admission.is_under_load(0.0)
    assert door.admit(Caller("stranger").initiation()) == (True, None)


def test_an_answer_to_this_nodes_own_call_passes_under_load_once(door):
    caller = Caller()
    (initiation,) = Here(caller).initiations(1)
    response = answer_to(door, caller, initiation)
    door.load()

    assert door.admit(response) == (True, None)
    passed, reply = door.admit(response)
    assert not passed
    assert reply is not None
    assert door.drops == {"handshake_under_load": 1}


def test_messages_that_are_handled_are_told_apart(door):
    caller = Caller()
    (initiation,) = Here(caller).initiations(1)
    door.admit(answer_to(door, caller, initiation))
    door.load()

    door.admission.handled(1)  # the answer, which does not count as load
    assert door.admission.is_under_load(0.0)
    door.admission.handled(UNDER_LOAD_WAITING)
    door.admission.handled(7)  # more than were called
    assert not door.admission.is_under_load(2.0)


def test_a_message_that_the_link_did_not_take_is_no_load(door):
    for _ in range(2 * UNDER_LOAD_WAITING):
        door.admit(Caller("others").initiation())
        door.admission.not_taken()

    assert not door.admission.is_under_load(0.0)


def test_the_first_message_that_the_link_did_not_take_leaves_as_much_load_as_before(door):
    for _ in range(UNDER_LOAD_WAITING):
        door.admit(Caller("others").initiation())
    door.admission.not_taken()

    assert not door.admission.is_under_load(0.0)
    door.admit(Caller("others").initiation())
    assert door.admission.is_under_load(0.0)


def cookie_for(caller, initiation):
    """Return the cookie reply of *caller*, who is under load, to *initiation*."""
    return CookieChecker(caller.public_key, seeded("cookies")).make_reply(initiation.datagram, b"place", 0.0)


def test_cookie_replies_to_this_nodes_own_calls_are_no_load(door):
    callers = [Caller(number) for number in range(2 * UNDER_LOAD_WAITING)]
    for caller, initiation in zip(callers, Here(*callers).initiations(len(callers)), strict=True):
        door.admission.sent(initiation.datagram, 0.0)
        assert door.admit(cookie_for(caller, initiation)) == (True, None)

    assert not door.admission.is_under_load(0.0)


def test_an_awaited_cookie_reply_passes_once_although_forged_ones_have_taken_their_share(door):
    caller = Caller()
    (initiation,) = Here(caller).initiations(1)
    door.admission.sent(initiation.datagram, 0.0)
    forged = TYPE_COOKIE_REPLY.to_bytes(4, "little") + bytes(60)
    while door.admit(forged)[0]:
        pass

    reply = cookie_for(caller, initiation)

    assert [door.admit(reply)[0] for _ in range(2)] == [True, False]


def test_messages_to_both_keys_of_a_node_pass_and_those_to_a_withdrawn_one_do_not(door):
    new = PrivateKey.generate(seeded("new"))
    to_old, to_new = Caller().initiation(), Caller("another", new).initiation()
    door.admission.use_keys([HERE.public, new.public])

    assert door.admit(to_old) == door.admit(to_new) == (True, None)
    door.admission.use_keys([new.public])
    door.admit(to_old)  # one is shown to the agent
    assert door.admit(to_old) == (False, None)
    assert door.admit(to_new) == (True, None)

    assert door.drops == {"mac1": 1}


def test_cookies_of_either_key_are_taken_under_load_and_outlive_the_other_key(door):
    new = PrivateKey.generate(seeded("new"))
    door.admission.use_keys([HERE.public, new.public])
    door.load()
    callers = [Caller(), Caller("another", new)]
    for caller in callers:
        passed, reply = door.admit(caller.initiation())
        assert not passed
        caller.sessions.receive(reply, ("192.0.2.9", 1), caller.at)

    door.admission.use_keys([new.public, HERE.public])

    assert [door.admit(caller.initiation()) for caller in callers] == [(True, None)] * 2
