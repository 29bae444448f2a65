"""Which library seals bulk units with AES: the system's libcrypto, or the OpenSSL that cryptography includes.

Since 3.1, OpenSSL uses the vector instructions of today's processors (VAES) for AES-GCM, which takes half the time;
Debian 12 has 3.0.  cryptography's OpenSSL is newer, but can only be called as a Python object.  That costs a
microsecond, which pays off for a unit but not for a message, and needs the interpreter, which further lanes do not
have.  So a measurement at the start decides which one is faster.  Both produce the same bytes.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.backends.openssl import backend
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

if TYPE_CHECKING:
    from types import ModuleType

# Ours
VARIABLE = "OVERLAY_AES"  # in the environment: a choice instead of the measurement
LIBCRYPTO, CRYPTOGRAPHY = "libcrypto", "cryptography"
WORTH = 0.75  # of libcrypto's time; with VAES it is half, without VAES the same, so noise does not decide


def choose_aes(core: ModuleType, *, is_alone: bool = True) -> str:
    """Make keys of units that are created from now on use the faster library, and return which one that is.

    This takes less than a millisecond.  With further lanes, not *is_alone*, it is libcrypto.
    """
    choice = LIBCRYPTO
    if is_alone:
        choice = os.environ.get(VARIABLE, "")
        if choice not in {LIBCRYPTO, CRYPTOGRAPHY}:
            choice = CRYPTOGRAPHY if _is_worth_it(core) else LIBCRYPTO
    core.use_python_aes(choice == CRYPTOGRAPHY)
    text = backend.openssl_version_text() if choice == CRYPTOGRAPHY else core.LIBRARY
    version = " ".join(text.split()[:2])
    return f"{version} of {CRYPTOGRAPHY}" if choice == CRYPTOGRAPHY else version


def _is_worth_it(core: Any) -> bool:
    compared = core.compare_aes(AESGCM(bytes(32)).encrypt_into)
    return compared is not None and compared[1] < WORTH * compared[0]
