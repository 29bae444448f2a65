"""Secrets in bytes that can be overwritten."""

import pytest

from overlay.session.secret_bytes import overwrite, preshared_bytes


def test_no_preshared_key_is_zeros():
    assert preshared_bytes(None) == bytes(32)


def test_key_of_another_size_is_refused_without_repeating_it():
    with pytest.raises(ValueError, match=r"^a preshared key has 32 bytes, not 3$"):
        preshared_bytes(b"abc")


def test_overwritten_secret_is_zeros_in_place():
    secret = preshared_bytes(b"k" * 32)

    overwrite(secret)

    assert secret == bytes(32)
