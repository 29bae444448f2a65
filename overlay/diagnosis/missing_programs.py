"""Programs that the peers file needs and this host lacks, with the place in the file."""

from __future__ import annotations

import os
from itertools import chain
from typing import TYPE_CHECKING

from overlay.errors import ConfigError
from overlay.host.firewall.read import FOLDERS
from overlay.services.delivery import plan_delivery
from overlay.wire.ip import IPV6_MINIMUM_MTU
from peers.errors import KeyProblem, TableError
from peers.lines import find_line
from peers.services.conflicts import places

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from peers.errors import Keys
    from peers.peer import Peer
    from peers.table import Table

# Ours: values on which rules depend only by their numbers
_INTERFACE, _MTU, _MARK = "overlay0", IPV6_MINIMUM_MTU, 1


def has_program(name: str) -> bool:
    """Return whether this host has the program *name* in the directories of administrators."""
    return any(os.access(f"{folder}/{name}", os.X_OK) for folder in FOLDERS)


def find_missing(
    table: Table,
    own: Peer,
    files: Iterable[Path],
    has: Callable[[str], bool] = has_program,
    *,
    masquerade: bool = False,
) -> ConfigError | TableError | KeyProblem | None:
    """Return an error about a program that *own* needs and this host lacks; None if there is none.

    *files* are those that *table* was read from, in which the line is looked up.  *masquerade* is the option of the
    command line.
    """
    if has("nft"):
        return None
    if masquerade:
        return ConfigError("--masquerade needs the program nft on this host: install nftables")
    reasons = _reasons(table, own) if plan_delivery(table, own, _INTERFACE, _MTU, _MARK).rules else iter(())
    found = next(chain(_network_reasons(table), reasons), None)
    if found is None:
        return None
    keys, what = found
    problem = KeyProblem(
        keys, f"{what}, which needs the program nft on the host of {own.name}: install nftables there"
    )
    for path in files:
        try:
            line = find_line(path.read_text("utf-8"), keys)
        except (OSError, ValueError):
            continue
        if line is not None:
            return TableError(path, line, str(problem))
    return problem


def _network_reasons(table: Table) -> Iterator[tuple[Keys, str]]:
    if table.network.masquerade:
        yield ("network", "masquerade"), "is true"


def _reasons(table: Table, own: Peer) -> Iterator[tuple[Keys, str]]:
    """Yield the translations on the host of *own*, the simplest first."""
    served = [
        (service, place, entry)
        for service in table.services.values()
        for place, entry in places(service)
        if entry.peer == own.name
    ]
    for _, place, entry in served:
        if entry.port is not None:
            yield (*place, "port"), f"sends packets of clients to port {entry.port}"
        if entry.address is not None:
            yield (*place, "address"), f"passes packets of clients on to {entry.address}"
    for service, place, _ in served:
        if service.is_directed_by(own.name):
            yield (
                place,
                "is a server that also balances the service, and packets of clients get its own address",
            )
        yield (
            place,
            f"gets unencrypted packets from directors of services.{service.name}, and tells clients what fits",
        )
