"""The forwarder as the agent sees it: a process that is started, told things, and reports."""

from __future__ import annotations

import array
import contextlib
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import trio

from overlay.errors import HostError, PacketError
from overlay.link import MESSAGE_BYTES, Command, Report, decode, encode

if TYPE_CHECKING:
    from collections.abc import Sequence

# Ours
LINK_BUFFER = 4 * 1024 * 1024  # bytes each way: a table of 100,000 routes takes about 3 MB
STOP_TIME = 2.0  # seconds that a forwarder gets to end by itself


class ForwarderGoneError(Exception):
    """The forwarder process has ended."""


class Forwarder:
    """One forwarder process and our end of the link to it."""

    def __init__(self) -> None:
        """Start the process.  Raises HostError."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (ours, theirs):
            for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                end.setsockopt(socket.SOL_SOCKET, option, LINK_BUFFER)
        # -I: neither the current directory nor the environment decides what a process started by root imports.
        command = [sys.executable, "-I", "-m", "overlay.forwarding", str(theirs.fileno())]
        try:
            self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        except OSError as error:
            ours.close()
            raise HostError(f"the forwarder could not be started: {error.strerror}") from error
        finally:
            theirs.close()
        ours.setblocking(False)
        self._link = ours
        self._sending = trio.Lock()

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
                    await trio.lowlevel.wait_writable(self._link)
                except OSError as error:
                    raise ForwarderGoneError from error
                else:
                    return

    async def receive(self) -> Report | None:
        """Return the next report; None for what is no report.  Raises ForwarderGoneError."""
        while True:
            try:
                data = self._link.recv(MESSAGE_BYTES)
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self._link)
                continue
            except OSError as error:
                raise ForwarderGoneError from error
            if not data:
                raise ForwarderGoneError
            try:
                message = decode(data)
            except PacketError:
                return None
            return message if isinstance(message, Report) else None

    def receive_now(self) -> Report | None:
        """Return a report that is there already, None if there is none or it is no report."""
        try:
            message = decode(self._link.recv(MESSAGE_BYTES))
        except (OSError, PacketError):
            return None
        return message if isinstance(message, Report) else None

    async def stop(self) -> str:
        """End the process and return what became of it, in words."""
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
