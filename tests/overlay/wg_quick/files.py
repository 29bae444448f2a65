"""wg-quick hosts for tests: the same keys every time, and short files."""

from __future__ import annotations

import hashlib
from textwrap import dedent

from overlay.crypto.keys import PresharedKey, PrivateKey, encode_key
from overlay.importing.places import Remarks
from overlay.wg_quick.conf import Conf
from overlay.wg_quick.importing import import_files


def private(name: str) -> PrivateKey:
    return PrivateKey(hashlib.sha256(name.encode()).digest())


def public(name: str) -> str:
    return encode_key(private(name).public)


def preshared(name: str) -> PresharedKey:
    return PresharedKey(hashlib.sha256(b"psk" + name.encode()).digest())


class Keys(dict):
    """``{private_paris}``, ``{public_paris}`` and ``{psk_any}`` in the text of a file."""

    def __missing__(self, name: str) -> str:
        kind, _, whose = name.partition("_")
        return {
            "private": lambda: private(whose).to_base64(),
            "public": lambda: public(whose),
            "psk": lambda: preshared(whose).to_base64(),
        }[kind]()


def text(template: str) -> str:
    return dedent(template).lstrip("\n").format_map(Keys())


def imported(directory=None, **files: str):
    """Return the peers file made of *files*, by their names without ``.conf``, and the remarks as text."""
    remarks = Remarks()
    parsed = [
        (f"{name}.conf", Conf.parse(text(template), f"{name}.conf")) for name, template in files.items()
    ]
    result = import_files(parsed, remarks, directory)
    return result, [str(remark) for remark in remarks.all()]
