"""A host in wg-quick files, while a peers file is made from them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from overlay.importing.places import FileLine
    from overlay.wg_quick.conf import Host, Other
    from peers.addresses import Address, Prefix
    from peers.peer import Endpoint


@dataclass(slots=True)
class Node:
    """One host: its file, if that is imported, and what the files of others say about it."""

    public_key: bytes
    place: FileLine
    host: Host | None = None
    path: str = ""
    sightings: list[tuple[Node, Other]] = field(default_factory=list)
    name: str = ""
    addresses: list[Address] = field(default_factory=list)
    subnets: list[Prefix] = field(default_factory=list)
    endpoint: Endpoint | None = None
    listen_port: int | None = None
    keepalive: int = 0
    preshared_key: bytes | None = field(default=None, repr=False)
