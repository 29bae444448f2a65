"""Messages under one keypair."""

import pytest

from overlay.crypto.transport import TransportKeys
from overlay.errors import PacketError


@pytest.fixture
def ends():
    one, other = bytes(range(32)), bytes(range(32, 64))
    return TransportKeys(7, one, other), TransportKeys(8, other, one)


def test_message_is_opened_with_its_padding(ends):
    message = ends[0].seal(b"hello")

    assert message[:16] == bytes.fromhex("04000000 07000000 0000000000000000")
    assert len(message) == 16 + 16 + 16
    assert ends[1].open(message) == b"hello" + bytes(11)


def test_counter_is_never_used_twice(ends):
    assert [ends[0].seal(b"")[8] for _ in range(3)] == [0, 1, 2]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda message: message[:31], "transport_short"),
        (lambda message: message[:-1] + bytes([message[-1] ^ 1]), "transport_auth"),
        (lambda message: message[:8] + b"\1" + message[9:], "transport_auth"),
        (lambda message: message[:8] + b"\xff" * 8 + message[16:], "replay"),
    ],
)
def test_wrong_message_is_refused_and_the_right_one_taken_after_it(ends, change, reason):
    message = ends[0].seal(b"hello")

    with pytest.raises(PacketError, match=reason):
        ends[1].open(change(message))

    assert ends[1].open(message).startswith(b"hello")


def test_message_is_taken_once(ends):
    message = ends[0].seal(b"hello")
    ends[1].open(message)

    with pytest.raises(PacketError, match="replay"):
        ends[1].open(message)


def test_keys_are_not_shown(ends):
    assert bytes(range(32)).hex() not in repr(ends[0])
