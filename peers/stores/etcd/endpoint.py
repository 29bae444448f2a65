"""Where others reach this host, as far as it can tell itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peers.stores.etcd.remarks import is_reachable

if TYPE_CHECKING:
    from collections.abc import Collection

    from peers.addresses import Prefix
    from peers.stores.membership import Member


def find_address(local: str | None, member: Member, prefixes: Collection[Prefix]) -> str | None:
    """Return the address that etcd was reached from, *local*, else the one towards others; None if neither will do."""
    if local is not None and is_reachable(local, prefixes):
        return local
    found = member.own_address(None)
    return found if found is not None and is_reachable(found, prefixes) else None
