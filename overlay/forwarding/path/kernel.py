"""What the kernel knows about the paths to peers that do not answer probes: unencrypted ones, and plain WireGuard.

It learns from ICMP errors about our datagrams and forgets after some minutes.  A path that silently drops large
datagrams (a black hole) cannot be noticed this way: only an answer would show it, and these peers give none.

The kernel is asked while packets flow and at most once in LOOK_TIME for a peer, or at once when it refused a send as
too large.  With very many peers each is asked less often, so that asking costs little at any number.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Protocol

from overlay.forwarding.offload.flow import OVERHEAD
from overlay.forwarding.peer import WIDE
from overlay.wire.messages import PADDING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from overlay.forwarding.peer import LivePeer
    from overlay.wire.addresses import Sockaddr

# Specification
UDP_HEADERS = {4: 20 + 8, 6: 40 + 8}  # bytes before a datagram's payload

# Ours
LOOK_TIME = 1.0  # seconds
LOOKS_PER_SECOND = 1000.0  # each takes some 10 microseconds
LEAST = 576  # bytes; no smaller MTU is believed (RFC 791 section 3.2: what every host must take)


class PathSocket(Protocol):
    """A socket that asks the kernel and sends nothing."""

    def mtu_to(self, endpoint: Sockaddr, /) -> int: ...
    def close(self) -> None: ...


class KernelPaths:
    """Keeps ``peer.path.mtu`` as the kernel knows it."""

    def __init__(self, mtu: int, link: int = 0) -> None:
        """*mtu* is the limit of one payload, of which *link* bytes before the packet belong to a frame."""
        self._mtu, self._link = mtu, link
        self._sockets: dict[int, PathSocket] = {}
        self._turn = 0.0  # when the next one may be asked for again, if all are

    def use(self, families: Sequence[int], sockets: Sequence[PathSocket], mtu: int) -> None:
        """Ask with *sockets*, by family, from now on; *mtu* is the limit of a payload.  Without any, nothing
        is asked.
        """
        for each in self._sockets.values():
            each.close()
        self._sockets, self._mtu = dict(zip(families, sockets, strict=True)), mtu

    @staticmethod
    def look_soon(peer: LivePeer, _: float) -> None:
        """Make look() due when the next packet leaves for *peer*."""
        peer.path.due = 0.0

    def look(self, peer: LivePeer, now: float) -> None:
        """Use what the kernel knows about the path to *peer*, unless probes know more; ``peer.path.due`` says when
        again.
        """
        self._turn = max(self._turn, now) + 1 / LOOKS_PER_SECOND
        peer.path.due = max(now + LOOK_TIME, self._turn)
        endpoint, udp = peer.endpoint, peer.local.socket
        peer.path.omits = _is_probed(peer)
        if udp is not None and peer.path.omits:
            udp.discovery.omit(peer, now)
        elif udp is not None:
            udp.discovery.heed(peer, now)
        if peer.path.omits or endpoint is None:
            peer.path.is_known = False
            return
        version, family = (4, socket.AF_INET) if len(endpoint) == 2 else (6, socket.AF_INET6)
        asked = self._sockets.get(family)
        found = asked.mtu_to(endpoint) if asked is not None else 0
        if not found:  # no route now; what was known remains
            peer.path.is_known = peer.path.is_known and asked is not None
            if asked is None:
                peer.path.mtu = WIDE
            return
        found = max(found, LEAST)
        if peer.clear is not None:
            # The result of overhead() includes an Ethernet header where one is carried.
            room = fits = found - peer.encapsulation.overhead(version, peer.tunnel.ends) + self._link
        else:
            room = found - UDP_HEADERS[version] - OVERHEAD
            fits = (
                room // PADDING * PADDING
            )  # what fits still does once it is padded, which never exceeds the tun's MTU
        peer.path.is_known = True
        peer.path.mtu = fits if room < self._mtu else WIDE


def _is_probed(peer: LivePeer) -> bool:
    """Return whether *peer* answers probes, or did so last and has not been asked under its new keypair."""
    keypair = peer.keypairs.current
    bulk = keypair.bulk if keypair is not None else None
    return bulk is not None and (bulk.answers_probes or (peer.path.search is not None and not bulk.has_heard))
