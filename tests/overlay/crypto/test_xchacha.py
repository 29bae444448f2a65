from __future__ import annotations

import pytest
from cryptography.exceptions import InvalidTag
from hypothesis import given
from hypothesis import strategies as st

from overlay.crypto import xchacha
from tests.overlay.crypto.models import slow_hchacha20
from tests.overlay.crypto.vectors import unhex, vectors

keys = st.binary(min_size=32, max_size=32)


def test_hchacha20_gives_the_draft_s_subkey():
    key, nonce, subkey = unhex(vectors("crypto")["hchacha20"], "key", "nonce", "subkey")

    assert xchacha.hchacha20(key, nonce) == subkey
    assert slow_hchacha20(key, nonce) == subkey


@given(keys, st.binary(min_size=16, max_size=16))
def test_hchacha20_agrees_with_its_slow_twin(key, nonce):
    assert xchacha.hchacha20(key, nonce) == slow_hchacha20(key, nonce)


@pytest.mark.parametrize("nonce", [bytes(16), b"\xff" * 16, b"\xff\xff\xff\xff" + bytes(12)])
def test_hchacha20_agrees_at_the_ends_of_the_block_counter(nonce):
    assert xchacha.hchacha20(bytes(32), nonce) == slow_hchacha20(bytes(32), nonce)


def test_the_draft_s_message_is_sealed_and_opened():
    fields = ("key", "nonce", "associated", "plaintext", "sealed")
    key, nonce, associated, plaintext, sealed = unhex(vectors("crypto")["xchacha20_poly1305"], *fields)

    assert xchacha.seal(key, nonce, plaintext, associated) == sealed
    assert xchacha.open_sealed(key, nonce, sealed, associated) == plaintext


@given(keys, st.binary(min_size=24, max_size=24), st.integers(0, 32 * 8 - 1))
def test_a_flipped_bit_is_noticed(key, nonce, bit):
    sealed = bytearray(xchacha.seal(key, nonce, b"c" * 16, b"m" * 16))
    sealed[bit // 8] ^= 1 << bit % 8

    with pytest.raises(InvalidTag):
        xchacha.open_sealed(key, nonce, bytes(sealed), b"m" * 16)
