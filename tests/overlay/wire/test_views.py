from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.errors import PacketError
from overlay.wire.control import build, is_about_views, parse
from overlay.wire.views import PREFIXES, ViewAsked, ViewTold

prefixes = st.lists(st.ip_addresses().map(ip_network), max_size=PREFIXES).map(tuple)
numbers = st.integers(0, 2**64 - 1)


@given(st.builds(ViewAsked, numbers) | st.builds(ViewTold, numbers, prefixes, prefixes, st.booleans()))
def test_messages_are_read_as_they_were_built(message):
    payload = build(message)

    assert parse(payload) == message
    assert is_about_views(payload)


def test_bytes_are_those_of_the_specification():
    told = ViewTold(7, (ip_network("10.244.2.0/24"),), (), has_more=True)

    expected = bytes.fromhex("920c84a2696407a46d696e6591c4050af4020018a5796f75727390a46d6f7265c3")
    assert build(told) == expected + bytes(-len(expected) % 16)


@pytest.mark.parametrize(
    "packed", [b"\x0a\xf4\x02\x01\x18", b"\x0a\xf4\x02\x00\x21", b"\x0a\xf4\x02\x00", b"", 7]
)
def test_anything_but_a_prefix_is_refused(packed):
    with pytest.raises(PacketError):
        ViewTold.read({"id": 7, "mine": [packed], "yours": []})


@pytest.mark.parametrize(
    "body", [{}, {"id": -1}, {"id": 2**64}, {"id": "x"}, {"id": 7, "mine": []}, {"id": 7, "yours": 1}]
)
def test_anything_but_a_view_is_refused(body):
    with pytest.raises(PacketError):
        ViewTold.read(body)
