from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.errors import PacketError
from overlay.wire.messages import (
    TRANSPORT_HEADER,
    TYPE_TRANSPORT,
    CookieReply,
    Initiation,
    Response,
    message_type,
)

u32 = st.integers(0, 2**32 - 1)


def exactly(size):
    return st.binary(min_size=size, max_size=size)


initiations = st.builds(Initiation, u32, exactly(32), exactly(48), exactly(28), exactly(16), exactly(16))
responses = st.builds(Response, u32, u32, exactly(32), exactly(16), exactly(16), exactly(16))
cookie_replies = st.builds(CookieReply, u32, exactly(24), exactly(32))

# The layouts of whitepaper section 5.4, one letter for each byte of a field.
INITIATION = b"\1\0\0\0" + b"\x78\x56\x34\x12" + b"e" * 32 + b"s" * 48 + b"t" * 28 + b"1" * 16 + b"2" * 16
RESPONSE = b"\2\0\0\0\x78\x56\x34\x12\xf0\xde\xbc\x9a" + b"e" * 32 + b"n" * 16 + b"1" * 16 + b"2" * 16
COOKIE_REPLY = b"\3\0\0\0" + b"\x78\x56\x34\x12" + b"n" * 24 + b"c" * 32
KEEPALIVE = b"\4\0\0\0" + b"\x78\x56\x34\x12" + b"\x08\x07\x06\x05\x04\x03\x02\x01" + b"t" * 16

LITERAL = [
    (INITIATION, Initiation(0x12345678, b"e" * 32, b"s" * 48, b"t" * 28, b"1" * 16, b"2" * 16)),
    (RESPONSE, Response(0x12345678, 0x9ABCDEF0, b"e" * 32, b"n" * 16, b"1" * 16, b"2" * 16)),
    (COOKIE_REPLY, CookieReply(0x12345678, b"n" * 24, b"c" * 32)),
]
IDS = ["initiation", "response", "cookie"]


@pytest.mark.parametrize(("datagram", "message"), LITERAL, ids=IDS)
def test_literal_bytes_are_read_and_built(datagram, message):
    assert type(message).parse(datagram) == message
    assert message.build() == datagram


@pytest.mark.parametrize(
    ("datagram", "size"), [(INITIATION, 148), (RESPONSE, 92), (COOKIE_REPLY, 64), (KEEPALIVE, 32)]
)
def test_sizes_are_the_specification_s(datagram, size):
    assert len(datagram) == size


@given(st.one_of(initiations, responses, cookie_replies))
def test_what_is_built_is_read_back(message):
    assert type(message).parse(message.build()) == message


@pytest.mark.parametrize("parser", [Initiation, Response, CookieReply])
@given(st.one_of(st.binary(max_size=200), st.sampled_from([148, 92, 64, 32]).flatmap(exactly)))
def test_any_bytes_give_a_message_or_a_packet_error(parser, datagram):
    try:
        message = parser.parse(datagram)
    except PacketError:
        return

    assert message.build() == datagram


@pytest.mark.parametrize(("datagram", "message"), LITERAL, ids=IDS)
@pytest.mark.parametrize("change", [-1, 1])
def test_another_size_is_refused(datagram, message, change):
    resized = datagram[:-1] if change < 0 else datagram + b"\0"

    with pytest.raises(PacketError) as refusal:
        type(message).parse(resized)

    assert refusal.value.reason.endswith("_size")


def test_the_header_of_a_packet_is_its_type_index_and_counter():
    assert TRANSPORT_HEADER.unpack_from(KEEPALIVE) == (TYPE_TRANSPORT, 0x12345678, 0x0102030405060708)


@pytest.mark.parametrize(("datagram", "message"), LITERAL, ids=IDS)
@pytest.mark.parametrize("position", range(4))
def test_a_changed_type_or_reserved_byte_is_refused(datagram, message, position):
    changed = bytearray(datagram)
    changed[position] ^= 0x80

    with pytest.raises(PacketError) as refusal:
        type(message).parse(bytes(changed))

    assert refusal.value.reason.endswith("_type")


@pytest.mark.parametrize(
    ("datagram", "expected"), [(INITIATION, 1), (RESPONSE, 2), (COOKIE_REPLY, 3), (KEEPALIVE, 4)]
)
def test_the_type_is_the_first_four_bytes(datagram, expected):
    assert message_type(datagram) == expected
    assert message_type(memoryview(datagram)) == expected
    assert message_type(datagram[:3] + b"\1" + datagram[4:]) not in {1, 2, 3, 4}
    assert message_type(b"") == 0
