"""Underlay sockets that were replaced, kept while the forwarder still reads them.

If their port is configured again soon, the same sockets are used, and no two of our sockets ever share an address.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from overlay.host.sockets.underlay import UnderlaySocket

# Ours
LATER = 5.0  # seconds for the forwarder to close its own; until then the address cannot be bound
EARLIER = 2.0  # seconds, in which close_due() is called at least once


class Leaving:
    """The agent's descriptors of such sockets."""

    def __init__(self, patience: float) -> None:
        """*patience* is how many seconds the forwarder reads a socket that was replaced."""
        self._patience = patience
        self._closing: list[tuple[float, UnderlaySocket]] = []

    @property
    def sockets(self) -> list[UnderlaySocket]:
        """Those that can still be used again."""
        return [udp for _, udp in self._closing]

    def of(self, encapsulation: str) -> list[UnderlaySocket]:
        """Return those of one encapsulation."""
        return [udp for udp in self.sockets if udp.encapsulation == encapsulation]

    def add(
        self, replaced: Iterable[UnderlaySocket], successors: Collection[UnderlaySocket], now: float
    ) -> None:
        """Keep the sockets *replaced*; the forwarder now uses *successors* instead.

        A socket is kept for longer than the forwarder reads it, so that it can be used again until its address is free.
        If a successor has every address, a socket with one address takes datagrams from it: it must not exist when it
        is no longer read, and is closed earlier.  Raw sockets cannot be used again, and are closed at once.
        """
        for udp in replaced:
            if not udp.has_port:
                udp.close()
                continue
            takes = any(_is_of_all(each, udp) for each in successors)
            self._closing.append((now + self._patience + (-EARLIER if takes else LATER), udp))

    def take_back(self, returned: Collection[UnderlaySocket]) -> None:
        """Release *returned*, which are in use again, without closing them."""
        self._closing = [each for each in self._closing if each[1] not in returned]

    def close_due(self, now: float) -> None:
        """Close those whose time is over."""
        for at, udp in self._closing:
            if at <= now:
                udp.close()
        self._closing = [each for each in self._closing if each[0] > now]

    def close(self) -> None:
        """Close all."""
        self.close_due(float("inf"))


def _is_of_all(successor: UnderlaySocket, former: UnderlaySocket) -> bool:
    """Return whether *successor* has every address of the port, and *former* has one."""
    return (
        (successor.family, successor.port) == (former.family, former.port)
        and successor.address.is_unspecified
        and not former.address.is_unspecified
    )
