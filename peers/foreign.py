"""Files of other programs that are named as the peers file by mistake."""

from __future__ import annotations

import re

WG_SECTION = re.compile(r"^[ \t]*\[(?:Interface|Peer)\][ \t\r]*(?:#.*)?$", re.MULTILINE | re.IGNORECASE)
KEY = re.compile(r"\s*[A-Za-z0-9+/]{43}=\s*")


def recognize(text: str) -> str | None:
    """Return the second half of a sentence about *text*, if it is plainly a file of another kind.
    It quotes nothing.
    """
    if WG_SECTION.search(text):
        return "this is a configuration of wg or wg-quick, not a peers file: make one of it with `overlay import`"
    if KEY.fullmatch(text):
        return "this is a key, not a peers file: name the peers file here, and the private key with --key"
    return None
