from types import SimpleNamespace

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from overlay.forwarding import native
from overlay.forwarding.native.aes import VARIABLE, choose_aes
from overlay.link.messages import LIBRARY_CHARACTERS
from tests.overlay.forwarding.test_compiled import python_aes


class Core:
    """The extension, as far as the choice is concerned."""

    LIBRARY = "OpenSSL 3.0.19 27 Jan 2026"

    def __init__(self, compared=(1.0, 1.0)):
        self.compared, self.is_used = compared, None

    def compare_aes(self, seal):
        assert len(seal.__self__.encrypt(bytes(12), b"", None)) == 16
        return self.compared

    def use_python_aes(self, is_used):
        self.is_used = is_used


@pytest.mark.parametrize(
    ("compared", "is_used"),
    [
        ((7.3e-6, 3.9e-6), True),  # EPYC of 2022 with VAES, Debian 12
        ((4e-6, 4e-6), False),  # the same library
        ((4e-6, 3.1e-6), False),  # may be noise
        ((4e-6, 2.9e-6), True),
        ((3e-6, 9e-6), False),
        (None, False),  # they do not agree
    ],
)
def test_the_library_that_is_faster_by_more_than_noise_is_chosen(monkeypatch, compared, is_used):
    monkeypatch.delenv(VARIABLE, raising=False)
    core = Core(compared)

    told = choose_aes(core)

    assert core.is_used is is_used
    assert told.endswith(" of cryptography") is is_used
    assert told.startswith("OpenSSL ")
    assert len(told) <= LIBRARY_CHARACTERS


@pytest.mark.parametrize(
    ("chosen", "is_used"), [("libcrypto", False), ("cryptography", True), ("other", True)]
)
def test_the_environment_may_choose(monkeypatch, chosen, is_used):
    monkeypatch.setenv(VARIABLE, chosen)
    core = Core((7.3e-6, 3.9e-6))

    choose_aes(core)

    assert core.is_used is is_used


def test_with_further_lanes_it_is_libcrypto_whatever_is_faster(monkeypatch):
    monkeypatch.setenv(VARIABLE, "cryptography")
    core = Core((7.3e-6, 3.9e-6))

    assert choose_aes(core, is_alone=False) == "OpenSSL 3.0.19"
    assert core.is_used is False


needs_core = pytest.mark.skipif(native.core is None, reason=f"no compiled packet path: {native.missing}")


@needs_core
def test_both_libraries_are_measured():
    own, other = native.core.compare_aes(AESGCM(bytes(32)).encrypt_into)

    assert 0 < own < 1
    assert 0 < other < 1


@needs_core
@pytest.mark.parametrize("key", [bytes(31) + b"\x01", b"k" * 32])
def test_a_library_that_makes_other_bytes_is_not_compared(key):
    assert native.core.compare_aes(AESGCM(key).encrypt_into) is None


@needs_core
@pytest.mark.parametrize("method", [None, 1, print, SimpleNamespace().__init__])
def test_what_is_no_cipher_is_not_compared(method):
    assert native.core.compare_aes(method) is None


@needs_core
def test_the_method_of_a_key_is_released_with_it():
    class Sealer:
        def __call__(self, *_):
            raise AssertionError

    import sys

    from overlay.forwarding import state

    class UnitKey(state.UnitKeyState):
        pass

    sealer = Sealer()
    before = sys.getrefcount(sealer)
    with python_aes(True):
        key = UnitKey()
        key._seals(1, bytes(32), sealer)
        assert sys.getrefcount(sealer) == before + 1
        key._seals(1, bytes(32), sealer)
        assert sys.getrefcount(sealer) == before + 1
        key._seals(2, bytes(32), sealer)  # ChaCha20-Poly1305 is always libcrypto's
        assert sys.getrefcount(sealer) == before
        key._seals(1, bytes(32), sealer)
    del key
    assert sys.getrefcount(sealer) == before
