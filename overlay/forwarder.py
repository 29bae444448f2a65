"""The forwarder as the agent sees it: a process that is started, told things, and reports."""

from __future__ import annotations

import array
import contextlib
import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import trio

from overlay.errors import HostError, PacketError
from overlay.link import MESSAGE_BYTES, Command, Ready, Report, decode, encode

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

# Ours
# -I: neither the current directory nor the environment decides what a process started by root imports.
PROGRAM = (sys.executable, "-I", "-m", "overlay.forwarding")
# numpy's algebra would start threads when it is imported.  We use none of it, and a thread that was there before the
# privileges are given up would keep its own.
ENVIRONMENT = {f"{library}_NUM_THREADS": "1" for library in ("OPENBLAS", "OMP", "MKL", "BLIS")}
LINK_BUFFER = 4 * 1024 * 1024  # bytes each way: a table of 100,000 routes takes about 3 MB
STOP_TIME = 2.0  # seconds that a forwarder gets to end by itself


class ForwarderGoneError(Exception):
    """The forwarder process has ended."""


class Forwarder:
    """One forwarder process and our end of the link to it."""

    def __init__(self, program: Sequence[str] = PROGRAM) -> None:
        """Start *program*, which gets the number of its descriptor of the link.  Raises HostError."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (ours, theirs):
            for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                end.setsockopt(socket.SOL_SOCKET, option, LINK_BUFFER)
        try:
            # A process group of its own: Ctrl-C in a terminal is for the agent, which then closes the link.
            self._process = subprocess.Popen(
                [*program, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env={**os.environ, **ENVIRONMENT},
                process_group=0,
            )
        except OSError as error:
            ours.close()
            raise HostError(f"the forwarder could not be started: {error.strerror}") from error
        finally:
            theirs.close()
        ours.setblocking(False)
        self._link = ours
        self._sending = trio.Lock()
        self._early: list[Report | None] = []

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    async def send(self, command: Command, descriptors: Sequence[int] = ()) -> None:
        """Tell the forwarder; wait while the link is full.  Raises ForwarderGoneError."""
        data = encode(command)
        ancillary = []
        if descriptors:
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
        async with self._sending:
            while True:
                try:
                    self._link.sendmsg([data], ancillary)
                except BlockingIOError:
                    await self._wait(trio.lowlevel.wait_writable)
                except OSError as error:
                    # Whatever it was, this command is lost and the forwarder knows less than it should.  Whoever
                    # waits in receive() hears of that too, and starts another.
                    self.disconnect()
                    raise ForwarderGoneError from error
                else:
                    return

    def disconnect(self) -> None:
        """End the link: whoever uses it hears that the forwarder is gone, and is to stop() it."""
        with contextlib.suppress(OSError):
            self._link.shutdown(socket.SHUT_RDWR)

    async def get_ready(self) -> list[str]:
        """Wait until the forwarder says that it is ready, and return what it notes.  Raises ForwarderGoneError.

        A peer may call before that: what is reported of it waits for receive().
        """
        while True:
            for report in await self._read(1):
                if isinstance(report, Ready):
                    return report.notes
                self._early.append(report)

    async def receive(self, most: int = 1) -> list[Report | None]:
        """Wait for reports and return those that are there, at least one and at most *most*.

        None stands for what is no report.  Raises ForwarderGoneError.
        """
        if self._early:
            early, self._early = self._early[:most], self._early[most:]
            return early
        return await self._read(most)

    async def _read(self, most: int) -> list[Report | None]:
        reports: list[Report | None] = []
        while len(reports) < most:
            try:
                data = self._link.recv(MESSAGE_BYTES)
            except BlockingIOError:
                if reports:
                    break
                await self._wait(trio.lowlevel.wait_readable)
                continue
            except OSError as error:
                raise ForwarderGoneError from error
            if not data:
                if reports:
                    break  # the next call says so
                raise ForwarderGoneError
            try:
                message = decode(data)
            except PacketError:
                message = None
            reports.append(message if isinstance(message, Report) else None)
        return reports

    async def _wait(self, until: Callable[[socket.socket], Awaitable[None]]) -> None:
        try:
            await until(self._link)
        except trio.ClosedResourceError as error:
            raise ForwarderGoneError from error

    async def stop(self) -> str:
        """End the process and return what became of it, in words."""
        if self._link.fileno() != -1:
            trio.lowlevel.notify_closing(self._link)
            self._link.close()
        with trio.move_on_after(STOP_TIME) as patience:
            patience.shield = True
            while self._process.poll() is None:
                await trio.sleep(0.01)
        if self._process.poll() is None:
            self._process.kill()
        with contextlib.suppress(OSError):
            self._process.wait()
        code = self._process.returncode
        return f"killed by signal {-code}" if code < 0 else f"exit code {code}"
