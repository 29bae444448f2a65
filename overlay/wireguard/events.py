"""What a device asks its owner to do, and what it reports.  A peer is identified by its public key, 32 bytes."""

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

    The padding of an IP packet is removed; anything else is unchanged, with up to 15 zeros at the end.  The source
    address is not checked: WireGuard's AllowedIPs are left to the owner of the device.
    """

    peer: bytes
    payload: bytes


@dataclass(frozen=True, slots=True)
class Up:
    """A handshake with *peer* is completed; both ends have the keys.  *endpoint* is the peer's address."""

    peer: bytes
    endpoint: Sockaddr


@dataclass(frozen=True, slots=True)
class Lost:
    """*peer* did not answer for 90 seconds: the payloads that waited for it were dropped."""

    peer: bytes


@dataclass(frozen=True, slots=True)
class Refused:
    """A datagram from *source* was dropped, and changed nothing.  *reason* is one of those in docs/drops.md.

    *claimed* is the public key in an initiation of an unknown sender.  Nothing proves yet that the sender has the
    private key: to find out, and to answer, add it as a peer and pass the datagram to receive() again.
    """

    source: Sockaddr
    reason: str
    claimed: bytes | None = None


Event: TypeAlias = Datagram | Packet | Up | Lost | Refused
