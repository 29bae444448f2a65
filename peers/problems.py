"""Everything that is wrong in a peers file, where the agent needs only the first thing.

The text is read again without what was found, so that each rule has one place, where files are read.  Problems that may
follow from an omitted part are not reported.
"""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any

from peers.errors import KeyProblem, TableError
from peers.kinds import KINDS
from peers.toml import parse_document, read_document, to_error

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from peers.errors import Keys
    from peers.kind import Kind

# Ours
ROUNDS = 100  # readings at most, among them those that tell nothing new
# For what cannot be read and must be there, of no peer (RFC 1112, class E): a prefix of the network, addresses of peers
STAND_IN = IPv4Address("240.0.0.0")
OTHERS_DEPEND_ON = {"encapsulation", "device"}


def find_problems(
    text: str,
    path: Path,
    most: int = 10,
    *,
    has_directory: bool = True,
    kinds: Collection[Kind[Any]] = KINDS,
) -> list[TableError]:
    """Return what is wrong in *text*, the content of *path*, in the order of its lines; at most *most* problems.

    *has_directory* and *kinds* are as for peers.toml.  If the text is not TOML, it is the first
    problem alone.  Empty if nothing is wrong.
    """
    try:
        document = parse_document(text, path)
    except TableError as error:
        return [error]
    reduced = _Reduced(document.values)
    problems: list[KeyProblem] = []
    for _ in range(ROUNDS):
        try:
            read_document(document, path.parent if has_directory else None, kinds)
            break
        except KeyProblem as found:
            problem = KeyProblem(reduced.original(found.keys), found.finding)
            if not reduced.explains(problem.keys):
                problems.append(problem)
            if len(problems) == most or not reduced.leave_out(found.keys):
                break
    errors = [to_error(problem, text, path) for problem in problems]
    return sorted(errors, key=lambda error: error.line or 0)


class _Reduced:
    """A document from which wrong parts are removed in place."""

    def __init__(self, values: Any) -> None:
        self._values = values
        self._gone: set[Keys] = set()  # places in the original

    def original(self, keys: Keys) -> Keys:
        """Return where in the original that is what is now at *keys*: an array lost the items before it."""
        found: Keys = ()
        for key in keys:
            at = key
            if isinstance(at, int):
                while (*found, at) in self._gone or self._is_behind(found, at, key):
                    at += 1
            found = (*found, at)
        return found

    def _is_behind(self, array: Keys, at: int, wanted: int | str) -> bool:
        """Return whether fewer than *wanted* items that are left are before *at*."""
        assert isinstance(wanted, int)
        return at - sum((*array, each) in self._gone for each in range(at)) < wanted

    def explains(self, keys: Keys) -> bool:
        """Return whether a problem at *keys* may be there only because of what is gone."""
        if any(place[: len(keys)] == keys for place in self._gone):
            return True
        # A section may name one of another kind that is missing; [network] concerns all peers.
        if any(len(place) == 2 and place[0] not in {"network", keys[0]} for place in self._gone):
            return True
        return (*keys[:2], "encapsulation") in self._gone

    def leave_out(self, keys: Keys) -> bool:
        """Take away what is at *keys*, or what is around it where there is nothing; return whether to go on."""
        if keys[:2] == ("network", "prefix"):
            is_first = ("network", "prefix") not in self._gone
            self._gone.add(("network", "prefix"))
            self._values["network"]["prefix"] = f"{STAND_IN}/32"
            return is_first
        while len(keys) > 1 and not self._take(keys):
            keys = keys[:-1]
        if len(keys) == 1 and (keys[0] in {"network", "peers"} or not self._take(keys)):
            return False
        return keys[0] != "network" or keys[1] not in OTHERS_DEPEND_ON

    def _take(self, keys: Keys) -> bool:
        """Return whether there was something at *keys*; it is gone then."""
        place, container = self.original(keys), self._values
        for key in keys[:-1]:
            container = _item(container, key)
        if _item(container, keys[-1]) is None:
            return False
        self._gone.add(place)
        del container[keys[-1]]
        is_of_peer = len(keys) > 2 and keys[0] == "peers"
        peer = _item(self._values.get("peers"), keys[1]) if is_of_peer else None
        if isinstance(peer, dict) and not peer.get("subnets") and not peer.get("address"):
            peer["address"] = str(STAND_IN + len(self._gone))
        return True


def _item(container: Any, key: str | int) -> Any:
    """Return the value at *key*; None if it is missing or has no parts."""
    if isinstance(container, dict):
        return container.get(key)
    if isinstance(container, list) and isinstance(key, int) and key < len(container):
        return container[key]
    return None
