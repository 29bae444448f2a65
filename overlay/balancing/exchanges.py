"""Checks that are a single exchange, many at a time in one task: one that hangs does not delay the others.

A task, a time limit and waiting for a socket cost more than the rest of a check.  Here one epoll serves all sockets,
and one heap has all deadlines; both are looked at up to two hundred times a second, however much has arrived.
"""

from __future__ import annotations

import errno
import heapq
import itertools
import math
import os
import select
import socket
from typing import TYPE_CHECKING, TypeAlias

import trio

from overlay.services import checks
from overlay.services.checks.dialer import NotAskedError
from overlay.wire.ip import PROTOCOL_TCP

if TYPE_CHECKING:
    from collections.abc import Callable

    from overlay.balancing.dialer import TunnelDialer
    from overlay.balancing.pins import Pins
    from overlay.services.checking import Result
    from overlay.services.checks.exchange import Exchange

# Ours
GRAIN = 0.005  # seconds between two looks at the sockets
READ_BYTES = 65_535  # at once: the largest datagram
READS = 64  # of one socket in one look
EVENTS = 4096  # in one look
_WATCHED = select.EPOLLIN | select.EPOLLOUT | select.EPOLLET

Done: TypeAlias = "Callable[[Result | NotAskedError], None]"
"""Takes the result of a check, or why it could not be made."""


class _Running:
    """One exchange, and its socket."""

    __slots__ = ("dialer", "done", "exchange", "is_connected", "is_over", "rest", "socket")

    def __init__(self, dialer: TunnelDialer, exchange: Exchange, opened: socket.socket, done: Done) -> None:
        self.dialer, self.exchange, self.socket, self.done = dialer, exchange, opened, done
        self.rest = exchange.request  # what is still to be sent
        self.is_connected = self.is_over = False


class Exchanges:
    """The exchanges in progress, which proceed while run() runs."""

    def __init__(self, pins: Pins) -> None:
        self._pins = pins
        self._epoll: select.epoll | None = None
        self._running: dict[int, _Running] = {}  # by the descriptor that is watched
        self._times: list[tuple[float, int, _Running]] = []
        self._serials = itertools.count()
        self._unread: list[_Running] = []  # with more to read than the last look read
        self._waiting = trio.CancelScope()

    async def run(self) -> None:
        """Make the exchanges that begin() starts, forever."""
        with select.epoll() as epoll:
            self._epoll = epoll
            try:
                while True:
                    self._waiting = trio.CancelScope(deadline=self._next_time())
                    with self._waiting:
                        if not self._unread:
                            await trio.lowlevel.wait_readable(epoll.fileno())
                    self._look(epoll)
                    await trio.sleep(GRAIN)
            finally:
                self._epoll = None
                for _, _, running in self._times:
                    if not running.is_over:
                        running.is_over = True
                        running.socket.close()

    def begin(self, dialer: TunnelDialer, exchange: Exchange, done: Done) -> None:
        """Make *exchange* through *dialer*, and call *done* at its end, perhaps at once."""
        try:
            opened, flow = dialer.open(exchange.protocol)
        except NotAskedError as error:
            done(error)
            return
        running = _Running(dialer, exchange, opened, done)
        until = trio.current_time() + exchange.patience
        heapq.heappush(self._times, (until, next(self._serials), running))
        if until < self._waiting.deadline:  # noqa: PLR1730  setting it costs more than comparing
            self._waiting.deadline = until
        self._pins.lead(flow, dialer.target, lambda error: self._connect(running, error))

    def _connect(self, running: _Running, error: NotAskedError | None) -> None:
        if running.is_over or self._epoll is None:
            return
        if error is not None:
            self._end(running, error)
            return
        code = running.socket.connect_ex((running.dialer.address, running.dialer.port))
        if code not in {0, errno.EINPROGRESS}:
            self._fail(running, code)
            return
        number = running.socket.fileno()
        self._running[number] = running
        self._epoll.register(number, _WATCHED)
        if not code:
            self._go_on(running)

    def _next_time(self) -> float:
        while self._times and self._times[0][2].is_over:
            heapq.heappop(self._times)
        return self._times[0][0] if self._times else math.inf

    def _look(self, epoll: select.epoll) -> None:
        unread, self._unread = self._unread, []
        for running in unread:
            if not running.is_over:
                self._go_on(running)
        for number, _ in epoll.poll(0, EVENTS):
            running = self._running[number]
            if not running.is_over:
                self._go_on(running)
        now = trio.current_time()
        while self._next_time() <= now:
            running = heapq.heappop(self._times)[2]
            exchange = running.exchange
            self._end(running, exchange.silent or checks.unanswered(exchange.patience))

    def _go_on(self, running: _Running) -> None:
        """Do what the socket is ready for."""
        opened, exchange = running.socket, running.exchange
        if not running.is_connected:
            code = opened.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                self._fail(running, code)
                return
            running.is_connected = True
            if exchange.connected is not None:
                self._end(running, exchange.connected)
                return
        try:
            if running.rest:
                running.rest = running.rest[opened.send(running.rest) :]
                if running.rest:
                    return
            for _ in range(READS):
                result = exchange.receive(opened.recv(READ_BYTES))
                if result is not None:
                    self._end(running, result)
                    return
            self._unread.append(running)
        except BlockingIOError:
            pass
        except OSError as error:
            self._fail(running, error.errno or 0)

    def _fail(self, running: _Running, code: int) -> None:
        is_stream = running.exchange.protocol == PROTOCOL_TCP
        error = OSError(code, os.strerror(code))
        self._end(running, checks.failed(error, is_connected=running.is_connected and is_stream))

    def _end(self, running: _Running, found: Result | NotAskedError) -> None:
        running.is_over = True
        number = running.socket.fileno()
        if self._running.pop(number, None) is not None and self._epoll is not None:
            self._epoll.unregister(
                number
            )  # closing is not enough while a child process, about to exec, has a copy
        running.socket.close()
        running.done(found if isinstance(found, NotAskedError) else checks.bounded(found))
