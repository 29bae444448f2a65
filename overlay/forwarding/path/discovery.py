"""What determines the path MTU that a socket keeps to: IP_MTU_DISCOVER, by peer and for single sends.

- The kernel: for peers that do not answer probes.  Datagrams over IPv4 have DF set, routers report those that are too
  large for them (ICMP), and for ten minutes the kernel sends none larger than was reported, or fragments it.  But
  anyone who can guess ports can forge such a report, from anywhere, and cut a path to a tenth of its throughput.
- Not the kernel (OMIT): for peers whose path is searched by probes, which cannot be forged (RFC 8899 section 6.2.1).
  The kernel ignores the reports it has and records no new ones, and routers fragment what is too large for them until
  the probes, which always have DF set, have found the size.

One socket sends to all peers, because another on its port would take arrivals from it.  It rests in one of the two
modes and is switched around each send to a peer of the other kind.  It rests in the kernel's mode while there are peers
that do not answer probes, because an ICMP error counts only if it arrives while the socket is in that mode.
"""

from __future__ import annotations

import socket
from collections import OrderedDict
from typing import TYPE_CHECKING

from overlay.forwarding import state
from overlay.linux import (
    IP_MTU_DISCOVER,
    IPV6_MTU,
    IPV6_MTU_DISCOVER,
    PMTUDISC_DO,
    PMTUDISC_OMIT,
    PMTUDISC_WANT,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Protocol

    class Switched(Protocol):
        """A socket with options."""

        def setsockopt(self, level: int, option: int, value: int, /) -> None: ...


# Options, by the family of a socket
DISCOVER: dict[int, tuple[int, int]] = {
    socket.AF_INET: (socket.IPPROTO_IP, IP_MTU_DISCOVER),
    socket.AF_INET6: (socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER),
}
LARGEST: dict[int, tuple[int, int]] = {
    socket.AF_INET6: (socket.IPPROTO_IPV6, IPV6_MTU)
}  # beyond that the kernel fragments; 0 means never

# Ours
# Seconds after the last packet to a peer that does not answer probes, for which a socket rests in its mode
HEEDED_TIME = 15.0


class Discovery(state.DiscoveryState):
    """The mode of one socket, which this changes only if it *is_switched*; the agent has set that of others."""

    __slots__ = (
        "_beside",
        "_family",
        "_heeded",
        "_is_switched",
        "_learns",
        "_led",
        "_raw",
        "value",
    )

    def __init__(self, raw: Switched, family: int, *, is_switched: bool) -> None:
        self._raw, self._family, self._is_switched = raw, family, is_switched
        self._beside: Sequence[Switched] = ()
        self._led: Sequence[Discovery] = ()
        self._learns = False
        # Peers that do not answer probes, as far as is known, and until when each counts: the next to expire first.
        self._heeded: OrderedDict[object, float] = OrderedDict()
        self.omits = False  # it rests in OMIT
        self.value = PMTUDISC_WANT  # of IP_MTU_DISCOVER, but for single sends

    def rest_with(self, beside: Sequence[Switched]) -> None:
        """Let *beside* rest in the same mode: they share the port, and the kernel may take one of them for the sender
        of what an ICMP error quotes.
        """
        self._beside = beside

    def lead(self, led: Sequence[Discovery]) -> None:
        """Let the sockets of *led* rest in the same mode from now on: they send to the same peers, from other ports."""
        self._led = led

    def undo(self) -> None:
        """Reset the options to what the agent set: a socket that is returned to rests as it did when it was left."""
        if self._is_switched:
            self._raw.setsockopt(*DISCOVER[self._family], PMTUDISC_WANT)
            if self._family in LARGEST:
                self._raw.setsockopt(*LARGEST[self._family], 0)
            self.value, self.omits = PMTUDISC_WANT, False

    def learn(self, learns: bool) -> None:
        """Let routers tell the kernel of every datagram that is too large for them, except in OMIT.

        With the default, WANT, datagrams that one IPv4 send is split into do not have DF set, and routers fragment
        them.
        """
        self._learns = learns
        self._rest()

    def heed(self, peer: object, now: float) -> None:
        """Rest in the kernel's mode: there is a packet for *peer*, which does not answer probes."""
        self._heeded[peer] = now + HEEDED_TIME
        self._heeded.move_to_end(peer)
        self._forget(now)
        if self.omits:
            self.omits = False
            self._rest()

    def omit(self, peer: object, now: float) -> None:
        """Rest in OMIT: there is a packet for *peer*, which answers probes.  Not while packets for peers that do not
        answer probes keep the kernel's mode.
        """
        if self.omits or not self._is_switched:
            return
        self._heeded.pop(peer, None)
        self._forget(now)
        if not self._heeded:
            self.omits = True
            self._rest()

    def switch(self, omits: bool) -> None:
        """Send from now on in OMIT, or by what the kernel has learnt."""
        learnt = PMTUDISC_DO if self._learns and self._family == socket.AF_INET else PMTUDISC_WANT
        wanted = PMTUDISC_OMIT if omits else learnt
        if self._is_switched and wanted != self.value:
            self._raw.setsockopt(*DISCOVER[self._family], wanted)
            self.value = wanted

    def _forget(self, now: float) -> None:
        """Forget the peers that no longer count."""
        while self._heeded and next(iter(self._heeded.values())) <= now:
            self._heeded.popitem(last=False)

    def _rest(self) -> None:
        self.switch(self.omits)
        for each in self._beside:
            each.setsockopt(*DISCOVER[self._family], self.value)
        for led in self._led:
            led.omits = self.omits
            led._rest()
