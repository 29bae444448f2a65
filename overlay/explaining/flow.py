"""Which packet is explained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from overlay.host.plan import IPAddress


@dataclass(frozen=True, slots=True)
class Flow:
    """A packet to *destination*; without a *source* it is one that this host sends.

    *protocol* and the ports, None for any, count where services are told apart by them.  *size* is that of the packet
    in bytes, its IP header included; None for one that fits.
    """

    destination: IPAddress
    source: IPAddress | None = None
    protocol: str | None = None
    port: int | None = None
    source_port: int | None = None
    size: int | None = None
