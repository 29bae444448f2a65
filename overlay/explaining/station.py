"""What the bridge of a tap knows about one station."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from overlay.durations import format_duration
from peers.mac import format_mac


@dataclass(frozen=True, slots=True)
class StationSighting:
    """What the bridge knows about a station: its Ethernet address *mac*, None if no station is known for an IP address.

    It is behind *peer*, or *is_here*, on the side of the tap; if neither, that is not known.  *age* is how many seconds
    ago it was heard, None for one that the peers file assigns.
    """

    mac: bytes | None = None
    peer: str | None = None
    is_here: bool = False
    age: float | None = None

    def describe(self) -> dict[str, Any]:
        """Return the values for JSON."""
        place = "peer" if self.peer is not None else "here" if self.is_here else "unknown"
        return {
            "mac": None if self.mac is None else format_mac(self.mac),
            "place": place,
            "peer": self.peer,
            "is_static": place != "unknown" and self.age is None,
            "heard_seconds": None if self.age is None else round(self.age, 3),
        }

    def since(self) -> str:
        """Return a clause on how this is known."""
        return "by the peers file" if self.age is None else f"heard {format_duration(self.age)} ago"
