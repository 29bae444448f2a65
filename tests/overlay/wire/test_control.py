from __future__ import annotations

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.errors import PacketError
from overlay.wire import control
from overlay.wire.bulk import CIPHERS, MAXIMUM_FRAGMENTS, MAXIMUM_PACKET, MAXIMUM_SEALED
from overlay.wire.control import Hello, Ping, Pong, Presence, Probe, Probed, Report
from tests.refusals import refused

HELLO = Hello((1, 2), 65555, 255, 1420, is_answer=True, answers_pings=True, answers_probes=True, lanes=1)
BODY = {
    "version": 1,
    "ciphers": [1, 2],
    "unit": 65555,
    "fragments": 255,
    "packet": 1420,
    "heard": True,
    "pings": True,
    "probes": True,
}
REPORT_BODY = {"newest": 9, "units": 7, "datagrams": 300, "missing": 4}

numbers = st.integers(0, 2**64 - 1)
hellos = st.builds(
    Hello,
    st.lists(st.sampled_from(sorted(CIPHERS)), unique=True).map(tuple),
    st.integers(0, MAXIMUM_SEALED),
    st.integers(0, MAXIMUM_FRAGMENTS),
    st.integers(0, MAXIMUM_PACKET),
    is_answer=st.booleans(),
    answers_pings=st.booleans(),
    answers_probes=st.booleans(),
    lanes=st.integers(1, 8),
)
reports = st.builds(Report, numbers, numbers, numbers, numbers)
pings = st.one_of(st.builds(kind, numbers) for kind in (Ping, Pong, Probe, Probed))
anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=20)
        | st.dictionaries(st.integers(0, 20) | st.text(max_size=9), inner, max_size=20)
    ),
)


def packed(value, padding=0):
    return msgpack.packb(value) + bytes(padding)


# Literal bytes


def test_a_hello_has_these_bytes():
    expected = (
        b"\x92\x00\x88"
        b"\xa7version\x01"
        b"\xa7ciphers\x92\x01\x02"
        b"\xa4unit\xce\x00\x01\x00\x13"
        b"\xa9fragments\xcc\xff"
        b"\xa6packet\xcd\x05\x8c"
        b"\xa5heard\xc3"
        b"\xa5pings\xc3"
        b"\xa6probes\xc3"
    )

    assert control.build(HELLO) == expected + bytes(-len(expected) % 16)


def test_a_report_has_these_bytes():
    expected = b"\x92\x01\x84\xa6newest\x09\xa5units\x07\xa9datagrams\xcd\x01\x2c\xa7missing\x04"

    assert control.build(Report(9, 7, 300, 4)) == expected + bytes(-len(expected) % 16)


def test_a_ping_has_these_bytes():
    expected = b"\x92\x02\x81\xa2id\xcf\x01\x23\x45\x67\x89\xab\xcd\xef"

    assert control.build(Ping(0x0123456789ABCDEF)) == expected + bytes(1)


def test_a_pong_has_these_bytes():
    assert control.build(Pong(7)) == b"\x92\x03\x81\xa2id\x07" + bytes(9)


def test_a_probe_and_its_answer_have_these_bytes():
    assert control.build(Probe(7)) == b"\x92\x04\x81\xa2id\x07" + bytes(9)
    assert control.build(Probed(7)) == b"\x92\x05\x81\xa2id\x07" + bytes(9)


def test_a_presence_has_these_bytes():
    expected = b"\x92\x06\x83\xa5group\xce\x01\x02\x03\x04\xa6active\xc3\xa4gone\x92\x00\x02"

    assert control.build(Presence(0x01020304, True, (0, 2))) == expected + bytes(-len(expected) % 16)


@pytest.mark.parametrize(
    "body", [{}, {"group": -1}, {"group": "a"}, {"group": 1, "gone": 2}, {"group": 1, "gone": [-1]}, {"group": 1, "gone": [True]}]
)  # fmt: skip
def test_a_presence_of_another_form_is_refused(body):
    with refused("control"):
        control.parse(msgpack.packb([6, body]))


def test_a_probe_is_read_whatever_it_is_filled_up_to():
    assert control.parse(control.build(Probe(7)) + bytes(8900)) == Probe(7)


# Round trip


@given(hellos | reports | pings)
def test_a_message_is_read_back_as_it_was_built(message):
    payload = control.build(message)

    assert control.parse(payload) == message
    assert len(payload) % 16 == 0
    assert control.is_control(payload)


@given(st.binary(min_size=1))
def test_a_packet_is_never_taken_for_a_control_message(payload):
    assert control.is_control(payload) == (payload[0] >> 4 in {8, 9})


# What may differ between versions


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"kind": 0},
        [15],
        [15, {}],
        [77, "another form"],
        [-1, {}],
        [2**40, [1, 2, 3], "more"],
    ],
    ids=repr,
)
def test_a_message_of_another_version_is_ignored(value):
    assert control.parse(packed(value, 16)) is None


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=9).filter(lambda name: name not in BODY), st.booleans(), max_size=7
    )
)
def test_names_that_are_not_known_are_ignored(more):
    assert control.parse(packed([0, BODY | more])) == HELLO
    assert control.parse(packed([0, BODY, more])) == HELLO


def test_a_hello_of_a_later_version_is_read():
    assert control.parse(packed([0, BODY | {"version": 7}])) == HELLO


def test_a_hello_that_does_not_say_what_it_heard_has_heard_nothing():
    body = {name: value for name, value in BODY.items() if name != "heard"}

    assert control.parse(packed([0, body])).is_answer is False


def test_a_hello_that_does_not_speak_of_pings_answers_none():
    body = {name: value for name, value in BODY.items() if name != "pings"}

    assert control.parse(packed([0, body])).answers_pings is False
    assert control.parse(packed([0, body | {"pings": 1}])).answers_pings is False


@pytest.mark.parametrize(("kind", "message"), [(2, Ping(9)), (3, Pong(9))])
def test_more_in_a_ping_is_ignored(kind, message):
    assert control.parse(packed([kind, {"id": 9, "more": [1, "x"]}, 5], 32)) == message


def test_ciphers_that_are_not_known_are_left_out():
    assert control.parse(packed([0, BODY | {"ciphers": [9, 2, "x", 1, None, True]}])).ciphers == (2, 1)


@given(st.integers(MAXIMUM_SEALED, 2**64 - 1))
def test_absurd_limits_are_clamped(number):
    read = control.parse(packed([0, BODY | {"unit": number, "fragments": number, "packet": number}]))

    assert (read.unit, read.fragments, read.packet) == (MAXIMUM_SEALED, MAXIMUM_FRAGMENTS, MAXIMUM_PACKET)


# What is refused

nested = b"\x91" * 20 + b"\x00"


@pytest.mark.parametrize(
    "payload",
    [
        packed([0, BODY]) + b"\0\1",
        packed([0, BODY])[:-1],
        packed([0]),
        packed([0, [1]]),
        packed([True, BODY]),
        packed(["hello", BODY]),
        packed([]),
        packed([0, {}]),
        packed([0, BODY | {"version": 0}]),
        packed([0, BODY | {"version": "1"}]),
        packed([0, BODY | {"ciphers": 1}]),
        packed([0, BODY | {"unit": -1}]),
        packed([0, BODY | {"unit": 1.5}]),
        packed([0, BODY | {"packet": None}]),
        packed([0, BODY | {"fragments": True}]),
        packed([0, BODY | {"name": "x" * 65}]),
        packed([0, BODY | {"name": b"x" * 65}]),
        packed([0, BODY | {"ciphers": list(range(16))}]),
        packed([0, BODY | {str(number): 0 for number in range(10)}]),
        packed([1, {name: value for name, value in REPORT_BODY.items() if name != "units"}]),
        packed([1, REPORT_BODY | {"newest": -1}]),
        packed([2]),
        packed([2, {}]),
        packed([2, {"id": -1}]),
        packed([2, {"id": b"12345678"}]),
        packed([2, {"id": "x"}]),
        packed([2, {"id": 1.0}]),
        packed([3, {"id": True}]),
        packed([3, {"id": None}]),
        packed([3, [7]]),
        packed([0, BODY | {"deep": [[[[1]]]]}]),
        nested,
        b"\x91" * 1400 + b"\x00",
        b"\x91\xc1",  # no format of msgpack
        b"\x91\xd4\x01\x00",  # an extension
        b"\x91\xc7\x00\xff",  # a list as a key
        b"\x81\x91\x00\x00",  # a list as a key
        b"\x81\x80\x00",  # a map as a key
        b"\x91\xa1\xff",  # no UTF-8
        b"\x91\xdd\xff\xff\xff\xff",  # a list of four thousand million
        b"\x91\xdf\xff\xff\xff\xff",
        b"\x91\xdb\xff\xff\xff\xff",
        b"\x9f",
        b"\x80\x80",
    ],
)
def test_what_is_not_of_the_form_is_refused(payload):
    with refused("control"):
        control.parse(payload)


def refusal(payload):
    """Return why *payload* is refused, if it is; an exception of any other kind is raised."""
    try:
        control.parse(payload)
    except PacketError as error:
        return error.reason
    return ""


@given(st.binary(max_size=200) | st.binary(max_size=200).map(lambda tail: b"\x92" + tail))
def test_any_bytes_are_read_or_refused(payload):
    assert refusal(payload) in {"", "control"}


@given(anything)
def test_any_value_is_read_or_refused(value):
    payloads = [packed(value), packed([0, value]), packed([1, BODY, value])]
    payloads += [packed([kind, body]) for kind in (2, 3) for body in (value, {"id": value})]
    for payload in payloads:
        assert refusal(payload) in {"", "control"}


@given(st.sampled_from(sorted(BODY)), anything)
def test_any_value_of_any_name_is_read_or_refused(name, value):
    try:
        read = control.parse(packed([0, BODY | {name: value}]))
    except PacketError:
        return
    assert 0 <= read.unit <= MAXIMUM_SEALED
    assert 0 <= read.fragments <= MAXIMUM_FRAGMENTS
    assert set(read.ciphers) <= set(CIPHERS)


@given(st.sampled_from([2, 3]), anything)
def test_an_identifier_is_a_number_of_64_bits(kind, value):
    try:
        read = control.parse(packed([kind, {"id": value}]))
    except PacketError:
        return
    assert 0 <= read.identifier < 2**64


@pytest.mark.parametrize(("said", "lanes"), [(1, 1), (4, 4), (9, 8), (2**64 - 1, 8)])
def test_lanes_of_a_hello_are_bounded(said, lanes):
    assert control.parse(packed([0, BODY | {"lanes": said}])).lanes == lanes


@pytest.mark.parametrize("said", [-1, "4", None, 2.0])
def test_lanes_of_a_hello_that_are_not_a_number_are_refused(said):
    with refused("control"):
        control.parse(packed([0, BODY | {"lanes": said}]))


def test_a_hello_without_lanes_has_one():
    assert control.parse(packed([0, BODY])).lanes == 1
