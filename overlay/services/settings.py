"""The manual settings for servers, which all directors of a service share, without I/O.

Every director keeps every setting, and the newest for a server applies, wherever it was made: so directors agree,
whatever they receive in whatever order.  A setting is for a server as the peers file describes it.  If the file changes
the server, the setting is forgotten, and a director that reads the new file later cannot bring it back.  Otherwise it
is kept as long as any director of the service runs, because a director that starts learns it from the others.  Taking a
setting back is a setting, too.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from overlay.services.health import ByHand
from overlay.wire.service_control import SettingRow

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from overlay.services.directors import Group
    from peers.service import Check, Server, Service

# Ours
MOST_STAMP = 2**63 - 1


def group_of(service: Service) -> Group:
    """Return the directors of *service*; empty means all nodes."""
    return service.directors or ()


def entry_of(service: Service, server: Server) -> int:
    """Return the number of *server* as the file describes it, the same on every host that has this file."""
    checks = [_described(check) for check in server.checks or ()]
    written = service.name, server.key, server.name, server.weight, server.upper, server.lower, checks
    return int.from_bytes(hashlib.blake2s(repr(written).encode(), digest_size=8).digest(), "big")


def _described(check: Check) -> list[str]:
    """Return the keys of *check*.  Paths of files differ between hosts, so names stand for them."""
    return [
        str(getattr(value, "name", value)) for value in (getattr(check, each) for each in check.__slots__)
    ]


class Settings:
    """The settings of all services that this node directs.  Stamps are milliseconds since 1970, or later."""

    def __init__(self) -> None:
        self._entries: dict[int, tuple[Group, str, str]] = {}  # group, service and key of each server
        self._rows: dict[int, SettingRow] = {}
        self._digests: dict[Group, int] = {}  # until something changes

    def adopt(self, services: Iterable[Service]) -> None:
        """Use *services* from now on; settings for servers that were changed or removed are forgotten."""
        self._entries = {
            entry_of(service, server): (group_of(service), service.name, server.key)
            for service in services
            for server in service.entries
        }
        self._rows = {entry: row for entry, row in self._rows.items() if entry in self._entries}
        self._digests = {}

    def set(self, entry: int, by_hand: ByHand, wall_ms: int) -> SettingRow:
        """Apply *by_hand* from now on, and return the row for the other directors."""
        known = self._rows.get(entry)
        stamp = min(MOST_STAMP, max(wall_ms, 0 if known is None else known.stamp + 1))
        row = SettingRow(entry, stamp, by_hand.weight, by_hand.is_drained, by_hand.is_disabled)
        self._rows[entry] = row
        self._digests = {}
        return row

    def hear(self, group: Group, rows: Iterable[SettingRow]) -> bool:
        """Take the settings of another director of *group*, and return whether all their servers are known here."""
        knows = True
        for row in rows:
            if self._entries.get(row.entry, (None,))[0] != group or row.stamp > MOST_STAMP:
                knows = False
                continue
            known = self._rows.get(row.entry)
            if known is None or _order(row) > _order(known):
                self._rows[row.entry] = row
                self._digests = {}
        return knows

    def rows(self, group: Group) -> list[SettingRow]:
        """Return the settings of services with these directors, in an order that does not depend on the past."""
        return [row for entry, row in sorted(self._rows.items()) if self._entries[entry][0] == group]

    def digest(self, group: Group) -> int:
        """Return a number that is the same for the same settings; 0 if there are none."""
        if group not in self._digests:
            packed = b"".join(row.pack() for row in self.rows(group))
            digest = hashlib.blake2s(packed, digest_size=8).digest() if packed else b""
            self._digests[group] = int.from_bytes(digest, "big")
        return self._digests[group]

    def by_hand(self) -> Iterator[tuple[str, str, ByHand]]:
        """Yield the settings that apply, by service and key of their servers."""
        for entry, row in self._rows.items():
            _, service, key = self._entries[entry]
            yield service, key, ByHand(row.weight, row.is_drained, row.is_disabled)


def _order(row: SettingRow) -> tuple[int, bytes]:
    """Return a value that is greater for a newer setting; of two made at the same time, every director chooses the
    same.
    """
    return row.stamp, row.pack()
