"""Messages between directors, as bytes."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.errors import PacketError
from overlay.wire import control
from overlay.wire.bounds import CONTROL_BYTES
from overlay.wire.control import MAXIMUM_ENTRIES, MAXIMUM_TEXT
from overlay.wire.service_control import (
    MOST_SETTINGS,
    MOST_STANDINGS,
    STRING_BYTES,
    STRINGS,
    FlowsTold,
    SettingRow,
    SettingsHeard,
    SettingsTold,
    StandingRow,
    StandingsTold,
    SyncedFlow,
    in_messages,
    most_flows,
)

numbers, short, octet = st.integers(0, 2**64 - 1), st.integers(0, 0xFFFF), st.integers(0, 0xFF)
words = st.integers(0, 2**32 - 1)
settings = st.builds(SettingRow, numbers, numbers, st.none() | short, st.booleans(), st.booleans())
apart = st.sampled_from([(), (4,), (6,), (4, 6)])
standings = st.builds(StandingRow, numbers, octet, short, words, apart)


def flows(half):
    address = st.binary(min_size=half, max_size=half)
    return st.builds(SyncedFlow, octet, octet, short, words, address, short, address, short)


def several(rows, most):
    return st.lists(rows, max_size=most).map(tuple)


messages = st.one_of(
    st.builds(SettingsTold, numbers, numbers, several(settings, MOST_SETTINGS)),
    st.builds(SettingsHeard, numbers, numbers),
    st.builds(StandingsTold, numbers, numbers, several(standings, MOST_STANDINGS)),
    *[
        st.builds(FlowsTold, numbers, several(flows(half), most_flows(half)), st.booleans(), st.booleans())
        for half in (4, 16)
    ],
)


def body_of(payload):
    reader = msgpack.Unpacker()
    reader.feed(payload)
    return reader.unpack()[1]


@given(messages)
def test_message_is_read_back_and_is_not_larger_than_allowed(message):
    payload = control.build(message)

    assert control.parse(payload) == message
    assert len(payload) <= CONTROL_BYTES


@pytest.mark.parametrize(
    "message",
    [
        SettingsTold(2**64 - 1, 2**64 - 1, (SettingRow(2**64 - 1, 2**64 - 1, 0xFFFF, True, True),) * MOST_SETTINGS),
        StandingsTold(
            2**64 - 1, 2**64 - 1, (StandingRow(2**64 - 1, 255, 0xFFFF, 2**32 - 1, (4, 6)),) * MOST_STANDINGS
        ),
        FlowsTold(2**64 - 1, (SyncedFlow(6, 2, 9, 2**32 - 1, b"\xff" * 4, 1, b"\xff" * 4, 2),) * most_flows(4)),
        FlowsTold(2**64 - 1, (SyncedFlow(6, 2, 9, 2**32 - 1, b"\xff" * 16, 1, b"\xff" * 16, 2),) * most_flows(16)),
    ],
    ids=lambda message: type(message).__name__,
)  # fmt: skip
def test_fullest_message_is_one_that_every_version_can_read_past(message):
    """A reader that does not know the kind applies the limits of the format, and counts what exceeds them
    as malformed.
    """
    payload = control.build(message)

    assert len(payload) <= CONTROL_BYTES
    assert (STRINGS, STRING_BYTES) == (MAXIMUM_ENTRIES, MAXIMUM_TEXT)
    other = msgpack.packb([99, body_of(payload)])
    assert control.parse(other) is None


def test_settings_have_these_bytes():
    row = SettingRow(0x0102030405060708, 0x1112131415161718, 5, is_drained=True, is_disabled=False)
    string = bytes.fromhex("0102030405060708 1112131415161718 03 0005")
    expected = b"\x92\x07\x83\xa5group\x07\xa2id\x09\xa4rows\x91\xc4\x13" + string

    assert control.build(SettingsTold(7, 9, (row,))) == expected + bytes(-len(expected) % 16)


def test_a_flow_has_these_bytes():
    row = SyncedFlow(6, 2, 300, 0x01020304, bytes([10, 0, 0, 1]), 40000, bytes([192, 0, 2, 80]), 80)
    string = bytes.fromhex("06 02 012c 01020304 9c40 0050 0a000001 c0000250")
    head = b"\x92\x0a\x85\xa7service\x07\xa4size\x04\xa4rows\x91\xc4\x14"
    expected = head + string + b"\xa5wants\xc2\xa8complete\xc2"

    assert control.build(FlowsTold(7, (row,))) == expected + bytes(-len(expected) % 16)


@pytest.mark.parametrize("kind", [7, 8, 9, 10])
@pytest.mark.parametrize(
    "body",
    [
        {},
        {"group": -1, "id": 1, "settings": 0, "service": -1, "size": 4, "rows": []},
        {"group": 1, "id": "a", "settings": "a", "service": 1, "size": 5, "rows": []},
        {"group": 1, "id": True, "settings": True, "service": True, "size": 4, "rows": []},
    ],
    ids=str,
)
def test_message_of_another_form_is_refused(kind, body):
    with pytest.raises(PacketError, match="control"):
        control.parse(msgpack.packb([kind, body]))


@pytest.mark.parametrize("kind", [7, 9, 10])
@pytest.mark.parametrize(
    "rows", [None, 5, {}, [5], [b""], ["a"], [b"1234567"], [b"1" * 21], [[b"1"]]], ids=str
)
def test_rows_of_another_form_are_refused(kind, rows):
    body = {"group": 1, "id": 1, "settings": 1, "service": 1, "size": 4, "rows": rows}
    with pytest.raises(PacketError, match="control"):
        control.parse(msgpack.packb([kind, body]))


@given(st.lists(st.integers(), max_size=20), st.integers(1, 7))
def test_pieces_are_all_rows_in_their_order(rows, most):
    pieces = list(in_messages(rows, most))

    assert [row for piece in pieces for row in piece] == rows
    assert all(len(piece) <= most for piece in pieces)
    assert len(pieces) == max(1, -(-len(rows) // most))
