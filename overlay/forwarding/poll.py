"""How the loop waits: by an epoll, from Python or in the compiled twin, which drains what is ordinary meanwhile.

Waking the interpreter for a single packet costs more than forwarding it: its code is no longer in the caches.
"""

from __future__ import annotations

import math
import select
from typing import TYPE_CHECKING, Any, NamedTuple

from overlay.encap.encapsulation import Role

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from overlay.forwarding.twin import Twin
    from overlay.forwarding.underlay.udp_socket import UdpSocket

# Ours
EVENTS = 16  # taken from the poll at once: the tun, the link, two sockets and those they replaced
_ENDLESS = frozenset({Role.ALL, Role.RECEIVES})  # a batch of them is taken; of handshakes less at a time


class Found(NamedTuple):
    """The result of a wait."""

    ready: list[tuple[int, int]]
    """Descriptors and what they are ready for, as epoll.poll() has them."""
    drained: int
    """One whose drain is for Python to go on with before anything else; -1 if there is none."""
    result: int
    """That of the drain; else 0, or that the twin has news."""


class Poll:
    """An epoll; once there is a twin, it waits there."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._epoll, self._clock = select.epoll(), clock
        self._native: Any = None
        self._twin: Twin | None = None
        self._takes_clear = False
        self.close, self.register, self.unregister = (
            self._epoll.close,
            self._epoll.register,
            self._epoll.unregister,
        )

    def compile(self, native: ModuleType, twin: Twin, *, takes_clear: bool) -> None:
        """Wait in the *twin* from now on, which may drain sockets of tunnels in the clear meanwhile."""
        self._native, self._twin = native.Poll(self._epoll.fileno(), twin.lane), twin
        self._takes_clear = takes_clear

    def read_tun(self, descriptor: int, *, is_first: bool) -> None:
        """Wait for packets of a queue of the tun; those of the first may be drained during the wait."""
        self._epoll.register(descriptor, select.EPOLLIN)
        if self._native is not None and is_first:
            self._native.watch(descriptor, None)

    def read(self, udp: UdpSocket) -> None:
        """Wait for datagrams or errors at *udp*; datagrams may be drained during the wait."""
        sends = udp.role in {Role.SENDS, Role.SENDS_WHOLE}
        self._epoll.register(udp.descriptor, 0 if sends else select.EPOLLIN)
        is_udp = udp.carrier is None and udp.role in _ENDLESS
        if self._native is not None and is_udp and (udp.clear is None or (udp.layout and self._takes_clear)):
            self._native.watch(udp.descriptor, udp)

    def forget(self, descriptor: int) -> None:
        """Stop waiting for this descriptor."""
        self._epoll.unregister(descriptor)
        if self._native is not None:
            self._native.unwatch(descriptor)

    def wait(self, ends: float, deadline: float, *, once: bool) -> Found:
        """Wait until there is something for Python, or it is *ends*, or *deadline*, from which on nothing is drained.

        Times are the clock's, *ends* may be past.  *once*: come back after what is there first, whatever it is.
        """
        if self._twin is not None:
            self._twin.settle()
            return Found(*self._native.wait(self._clock(), ends, deadline, once))
        timeout = -1 if ends == math.inf else max(0.0, ends - self._clock())
        return Found(self._epoll.poll(timeout, EVENTS), -1, 0)
