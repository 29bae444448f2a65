"""Ethernet addresses: as text in the peers file, as 6 bytes everywhere else (IEEE 802 section 8)."""

from __future__ import annotations

import hashlib
import re

# Specification
MAC_SIZE = 6
GROUP = 0x01  # bits of the first byte: an address of many, and one that no vendor gave
LOCAL = 0x02
_TEXT = re.compile(r"[0-9a-fA-F]{2}(?:([:-])[0-9a-fA-F]{2})(?:\1[0-9a-fA-F]{2}){4}")


class GroupAddressError(ValueError):
    """An Ethernet address that is not a single device's: a group's, the broadcast address, or zero."""


def parse_mac(text: str) -> bytes:
    """Return the 6 bytes of one device's address.

    Raises ValueError, of which GroupAddressError is one; its message continues after *text*.
    """
    if not _TEXT.fullmatch(text):
        raise ValueError(
            "is not an Ethernet address; write six pairs of hex digits, such as 02:00:5e:10:00:01"
        )
    mac = bytes.fromhex(text.replace(":", "").replace("-", ""))
    if mac[0] & GROUP or not any(mac):
        raise GroupAddressError("is not the address of a single device; write that of the device itself")
    return mac


def format_mac(mac: bytes) -> str:
    """Return *mac* as six pairs of hex digits with colons."""
    return mac.hex(":")


def derived_mac(name: str) -> bytes:
    """Return the address of the peer *name* if it has none configured: the same on every host,
    and locally administered.
    """
    digest = hashlib.blake2s(name.encode(), digest_size=MAC_SIZE, person=b"overlay").digest()
    return bytes([digest[0] & ~GROUP & 0xFF | LOCAL]) + digest[1:]
