"""The packet to explain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from overlay.host.plan import IPAddress


@dataclass(frozen=True, slots=True)
class Flow:
    """A packet to *destination*; without a *source* this host sends it.

    *protocol* and the ports, None for any, matter where they distinguish services.  *size* is that of the packet in
    bytes, including its IP header; None for one that fits.
    """

    destination: IPAddress
    source: IPAddress | None = None
    protocol: str | None = None
    port: int | None = None
    source_port: int | None = None
    size: int | None = None
