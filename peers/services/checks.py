"""[checks.NAME], and the checks that are written at a service or a server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peers.errors import KeyProblem
from peers.files import path_below
from peers.key import read_keys
from peers.service import Check
from peers.services.keys import CHECK, FILES, KINDS
from peers.services.names import named_section, names_of
from peers.toml_section import describe

if TYPE_CHECKING:
    from pathlib import Path

    from peers.peer import Network
    from peers.toml_section import Section


def read_check(checks: Section, name: str, _network: Network, directory: Path | None) -> Check:
    """Return the check *name* among *checks*.  Raises KeyProblem."""
    return check_in(named_section(checks, name, "check"), directory, name)


def check_in(section: Section, directory: Path | None, name: str = "") -> Check:
    """Return the check that *section* writes, which has *name* if it is one of [checks]."""
    kind = section.choice("kind", tuple(KINDS))
    if kind is None:
        raise KeyProblem(section.keys, f"has no kind; write kind = {_listed(tuple(KINDS))}")
    known = names_of(CHECK) + names_of(KINDS[kind])
    for key in section.values:
        holders = [each for each, keys in KINDS.items() if key in names_of(keys)]
        if key not in known and holders:
            raise KeyProblem(
                (*section.keys, key),
                f"is for kind = {_listed(tuple(holders))}, and this is {kind}; remove it",
            )
    section.refuse_unknown(known)
    values = read_keys(section, (*CHECK, *KINDS[kind]))
    fall = section.integer("fall", 1, 1001, "a number of failures")
    if fall is not None and values.setdefault("retries", fall - 1) != fall - 1:
        raise KeyProblem(
            (*section.keys, "fall"), "is retries + 1, and retries says otherwise; write one of them"
        )
    for one, other in (("send", "send_hex"), ("expect", "expect_hex")):
        if one in section.values and other in section.values:
            raise KeyProblem(
                (*section.keys, other), f"is the same as {one} in other digits; write one of them"
            )
    if kind == "script" and not values.get("command"):
        raise KeyProblem(
            (*section.keys, "command"), "is missing; write the full path of a program and its arguments"
        )
    for key in FILES:
        if key in names_of(KINDS[kind]):
            values[key] = _file(section, key, directory)
    if (values.get("certificate_file") is None) != (values.get("key_file") is None):
        raise KeyProblem(section.keys, "has one of certificate_file and key_file; write both")
    if values.get("ca_file") is not None and values.setdefault("verify", True) is False:
        raise KeyProblem((*section.keys, "ca_file"), "is of no use with verify = false; remove one of them")
    return Check(kind, name, **values)


def _file(section: Section, key: str, directory: Path | None) -> Path | None:
    text = section.string(key, "the path of a file")
    if text is None:
        return None
    if not text or not text.isprintable():
        raise KeyProblem((*section.keys, key), f"is {describe(text)}; write the path of a file")
    try:
        return path_below(directory, text)
    except ValueError as error:
        raise KeyProblem((*section.keys, key), f"is {describe(text)}, {error}") from None


def _listed(names: tuple[str, ...]) -> str:
    quoted = [f'"{name}"' for name in names]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} or {quoted[-1]}"
