from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.crypto.keys import PresharedKey, PrivateKey, decode_key, encode_key
from tests.overlay.crypto.vectors import unhex, vectors
from tests.refusals import refused

RFC7748 = vectors("crypto")["x25519"]
SIZE = "a key has 44 characters of base64, as `wg genkey` writes it; this has "
CHARACTERS = "a key is written in base64; this has other characters"
SPELLING = "a key is 32 bytes in base64; this does not decode to 32 bytes"
LOW_ORDER = [bytes.fromhex(point) for point in vectors("crypto")["low_order"]["points"]]


def test_the_exchange_of_rfc_7748_gives_its_secret():
    private_a, private_b, public_a, public_b, shared = unhex(
        RFC7748, "private_a", "private_b", "public_a", "public_b", "shared"
    )
    a, b = PrivateKey(private_a), PrivateKey(private_b)

    assert (a.public, b.public) == (public_a, public_b)
    assert a.exchange(b.public) == b.exchange(a.public) == shared


@pytest.mark.parametrize("point", LOW_ORDER)
def test_a_point_of_low_order_is_refused(point):
    with refused("low_order_point"):
        PrivateKey.generate(os.urandom).exchange(point)


@given(st.binary(min_size=32, max_size=32))
def test_a_private_key_is_clamped_and_keeps_its_public_key(secret):
    key = PrivateKey(secret)
    stored = decode_key(key.to_base64())

    assert stored[0] & 7 == 0
    assert stored[31] & 0xC0 == 0x40
    assert PrivateKey.from_base64(key.to_base64()) == key


def test_a_private_key_that_begins_with_a_slash_is_read_back_with_a_plus():
    text = encode_key(b"\xff" * 31 + b"\x40")

    assert text[0] == "/"
    assert PrivateKey.from_base64(text).to_base64()[0] == "+"


@pytest.mark.parametrize("kind", [PrivateKey, PresharedKey])
def test_repr_shows_nothing_of_the_secret(kind):
    key = kind.generate(os.urandom)

    assert key.to_base64() not in repr(key)
    assert decode_key(key.to_base64()).hex() not in repr(key)


def test_repr_shows_whose_key_it_is():
    key = PrivateKey(b"k" * 32)

    assert repr(key) == f"PrivateKey(of {encode_key(key.public)})"
    assert repr(PresharedKey(b"k" * 32)) == "PresharedKey(hidden)"


def test_private_keys_have_hashes_of_their_own_and_preshared_keys_none():
    assert len({hash(PrivateKey(bytes([number]) * 32)) for number in range(8)}) > 1
    with pytest.raises(TypeError):
        hash(PresharedKey(b"k" * 32))


@pytest.mark.parametrize("kind", [PrivateKey, PresharedKey])
@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_key_of_another_size_is_refused(kind, size):
    with pytest.raises(ValueError, match="32 bytes"):
        kind(bytes(size))


@pytest.mark.parametrize("kind", [PrivateKey, PresharedKey])
def test_equal_keys_are_equal(kind):
    assert kind(b"k" * 32) == kind(b"k" * 32)
    assert kind(b"k" * 32) != kind(b"l" * 32)
    assert kind(b"k" * 32) != b"k" * 32


@given(st.binary(min_size=32, max_size=32))
def test_a_preshared_key_is_read_back(secret):
    key = PresharedKey.from_base64(encode_key(secret))

    assert key.secret == secret
    assert key.to_base64() == encode_key(secret)


@given(st.one_of(st.text(max_size=60), st.text(min_size=44, max_size=44)))
def test_any_text_is_a_key_or_a_value_error(text):
    try:
        key = decode_key(text)
    except ValueError:
        return

    assert encode_key(key) == text


def test_the_refusal_of_a_key_does_not_quote_it():
    text = "A" * 42 + "B="

    with pytest.raises(ValueError, match="does not decode to 32 bytes") as refusal:
        decode_key(text)

    assert text not in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", SIZE + "0"),
        ("A" * 43, SIZE + "43"),
        ("A" * 44, SPELLING),  # 33 bytes
        ("A" * 43 + "=\n", SIZE + "45"),
        (" " + "A" * 42 + "=", CHARACTERS),
        ("A" * 42 + "B=", SPELLING),  # a second spelling of 32 zero bytes
        ("A" * 42 + "_=", CHARACTERS),
        ("A" * 40 + "____", CHARACTERS),
    ],
)
def test_text_that_is_not_a_key_is_refused(text, problem):
    with pytest.raises(ValueError, match="a key") as refusal:
        decode_key(text)

    assert str(refusal.value) == problem


def test_bytes_that_a_private_key_was_read_from_are_known_again_clamped_or_not():
    written = bytes(range(7, 39))
    key = PrivateKey(written)

    assert key.is_written_as(written)
    assert key.is_written_as(decode_key(key.to_base64()))
    assert not key.is_written_as(key.public)
    assert not key.is_written_as(b"")
