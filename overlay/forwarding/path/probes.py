"""Probes of the path MTU, between a peer's search and the wire: when to send them, and answers to others'."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from overlay.errors import PacketError
from overlay.forwarding.path.search import PathMtu
from overlay.forwarding.peer import WIDE
from overlay.forwarding.ratelimit import TokenBuckets
from overlay.wire import control
from overlay.wire.control import Probe, Probed

if TYPE_CHECKING:
    from collections.abc import Callable

    from overlay.forwarding.keypair import Keypair
    from overlay.forwarding.peer import LivePeer
    from overlay.session.constants import Timing

# Ours
PROBES_PER_SECOND = 100.0  # of one peer that are answered: a search sends some ten in each round trip
PROBES_AT_ONCE = 100


class Probes:
    """The probes of all peers."""

    def __init__(self, timing: Timing, mtu: int) -> None:
        self._timing, self._mtu = timing, mtu
        self._permits = TokenBuckets(PROBES_PER_SECOND, PROBES_AT_ONCE)

    def set_mtu(self, mtu: int) -> None:
        """Search for packets of up to *mtu* bytes from now on: each path once it is restarted."""
        self._mtu = mtu

    def restart(self, peer: LivePeer, now: float) -> None:
        """Search again, because the path to *peer* may be another one."""
        if peer.path.search is not None:
            peer.path.search.restart(self._mtu, now)
            _apply(peer)

    def due(self, peer: LivePeer, now: float) -> float:
        """Return when turn() is to be called; math.inf where nothing is to be probed."""
        if peer.path.search is None:
            peer.path.search, peer.path.packets = PathMtu(self._mtu, self._timing), -1
        return max(now, peer.path.search.due)

    def turn(
        self,
        peer: LivePeer,
        keypair: Keypair[LivePeer] | None,
        now: float,
        send: Callable[[LivePeer, Keypair[LivePeer], bytes], bool],
    ) -> float:
        """Send what is due under *keypair* with *send* and return when to call again; math.inf if a hello comes first.

        A peer that has answered under an earlier keypair is sent a hello: super-packets may not trigger one, because if
        they vanish, TCP continues with single segments.  *send* returns False for what no device of this host takes.
        """
        path, bulk = peer.path.search, keypair.bulk if keypair is not None else None
        if path is None or keypair is None or bulk is None or (bulk.has_heard and not bulk.answers_probes):
            return math.inf
        packets = peer.traffic.tx_packets + peer.drops["path_mtu"]  # those that did not fit were to flow, too
        is_flowing, peer.path.packets = packets != peer.path.packets, packets
        if not bulk.has_heard:
            hello = bulk.offer(now) if is_flowing else None
            if hello is not None:
                send(peer, keypair, hello)
            return now + self._timing.path_probe_time
        for probe in path.round(now, is_flowing=is_flowing):
            payload = control.build(Probe(probe.identifier))
            if not send(peer, keypair, payload + bytes(probe.size - len(payload))):
                path.refused(probe.identifier)
        _apply(peer)
        return path.due

    def answer(self, probe: Probe, keypair: Keypair[LivePeer], now: float) -> bytes:
        """Return the answer to a probe that came by *keypair*.  Raises PacketError where its peer sends too many."""
        if not self._permits.allow(keypair.peer.number.to_bytes(8, "little"), now):
            raise PacketError("probe_rate")
        return control.build(Probed(probe.identifier))

    @staticmethod
    def take(probed: Probed, peer: LivePeer, now: float) -> float:
        """Take an answer and return when turn() should be called.  Raises PacketError if none is expected."""
        if peer.path.search is None or not peer.path.search.answered(probed.identifier, now):
            raise PacketError("probed_unexpected")
        _apply(peer)
        return peer.path.search.due


def _apply(peer: LivePeer) -> None:
    """Pass what is known about the path to the packet path."""
    path = peer.path.search
    assert path is not None
    peer.path.mtu = path.size if path.size < path.most else WIDE
    if not peer.path.omits:
        peer.path.omits, peer.path.due = True, 0.0
