"""What a device asks its owner to do, and what it reports.  A peer is named by its public key, 32 bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from overlay.wire.addresses import Sockaddr


@dataclass(frozen=True, slots=True)
class Datagram:
    """Send *data* to *endpoint* by UDP."""

    data: bytes
    endpoint: Sockaddr


@dataclass(frozen=True, slots=True)
class Packet:
    """*peer* sent *payload* through the tunnel.

    Of an IP packet the padding is cut off; anything else is as it came, with up to 15 zeros behind it.  Nobody has
    checked that the source is one that the peer may use: WireGuard's AllowedIPs are the owner's matter.
    """

    peer: bytes
    payload: bytes


@dataclass(frozen=True, slots=True)
class Up:
    """A handshake with *peer* is completed; both ends have the keys.  *endpoint* is where it was heard."""

    peer: bytes
    endpoint: Sockaddr


@dataclass(frozen=True, slots=True)
class Lost:
    """*peer* did not answer for 90 seconds: what waited for it was dropped."""

    peer: bytes


@dataclass(frozen=True, slots=True)
class Refused:
    """A datagram from *source* was dropped, and changed nothing.  *reason* is one of those in docs/drops.md.

    *claimed* is the public key in an initiation whose sender is nobody's peer.  That the sender has its private half is
    not proven yet: add it as a peer and hand the datagram to receive() again to find out, and to answer.
    """

    source: Sockaddr
    reason: str
    claimed: bytes | None = None


Event: TypeAlias = Datagram | Packet | Up | Lost | Refused
