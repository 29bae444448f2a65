from __future__ import annotations

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.crypto import blake2s
from tests.overlay.crypto.models import slow_hmac, slow_kdf
from tests.overlay.crypto.vectors import unhex, vectors

keys = st.binary(max_size=100)
data = st.binary(max_size=100)


def test_digest_is_blake2s_256():
    (expected,) = unhex(vectors("crypto")["blake2s"], "digest")

    assert blake2s.digest(b"abc") == expected


@given(keys, data)
def test_hmac_is_that_of_rfc_2104(key, data):
    assert blake2s.hmac_digest(key, data) == slow_hmac(key, data)
    assert blake2s.hmac_digest(key, data) == hmac.digest(key, data, hashlib.blake2s)


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 100])
def test_a_key_longer_than_a_block_is_hashed_first(size):
    key = bytes(range(size))

    assert blake2s.hmac_digest(key, b"data") == hmac.digest(key, b"data", hashlib.blake2s)


@given(keys, data)
def test_the_key_derivations_agree_with_their_formula(key, data):
    assert [blake2s.kdf1(key, data)] == slow_kdf(1, key, data)
    assert list(blake2s.kdf2(key, data)) == slow_kdf(2, key, data)
    assert list(blake2s.kdf3(key, data)) == slow_kdf(3, key, data)


@given(st.binary(min_size=1, max_size=32), data)
def test_mac_is_keyed_blake2s_128(key, data):
    assert blake2s.mac(key, data) == hashlib.blake2s(data, key=key, digest_size=16).digest()
    assert blake2s.mac(key, memoryview(data)) == blake2s.mac(key, data)
