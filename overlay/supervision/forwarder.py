"""The forwarder as seen by the agent: a process that is started, receives commands, and sends reports."""

from __future__ import annotations

import array
import contextlib
import logging
import os
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from overlay.errors import HostError, PacketError
from overlay.host import advice, clock
from overlay.host.process import user_ids
from overlay.link.codec import MESSAGE_BYTES, OtherVersionError, decode, encode
from overlay.link.messages import VERSION, Command, Ready, Report
from overlay.records.process_output import ProcessOutput
from overlay.wire.bounds import ROWS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
    from pathlib import Path

# -I: neither the current directory nor the environment decides what a process started by root imports.
PROGRAM = (sys.executable, "-I", "-m", "overlay.forwarding")
# numpy's linear algebra would start threads when it is imported.  We do not use it, and a thread that exists before
# privileges are dropped would keep its own.
ENVIRONMENT = {f"{library}_NUM_THREADS": "1" for library in ("OPENBLAS", "OMP", "MKL", "BLIS")}
LINK_BUFFER = 4 * 1024 * 1024  # bytes each way: a table of 100,000 routes takes about 3 MB
READ_BYTES = 8 * 1024  # of reports read at once: counters of a hundred peers, which take a millisecond
EARLY_REPORTS = 20_000  # kept before it is ready: as many as the forwarder itself keeps for a busy agent
STOP_TIME = 2.0  # seconds for a forwarder to end by itself
OUTPUT_BYTES = 64 * 1024  # read at once from its output: as much as the pipe holds
OUTPUT_PAUSE = 0.1  # seconds between two reads, so that a forwarder that prints without end costs little

log = logging.getLogger("overlay")


class ForwarderGoneError(Exception):
    """The forwarder process has ended."""


class OtherReleaseError(ForwarderGoneError):
    """The forwarder is of another release than this agent, and does not understand its commands."""


class Forwarder:
    """One forwarder process and our end of the link to it."""

    def __init__(
        self,
        program: Sequence[str] = PROGRAM,
        uid: int = user_ids.USER_IDS[0],
        output: ProcessOutput | None = None,
    ) -> None:
        """Start *program*, which gets the number of its descriptor of the link, and *uid*.

        Its output goes through *output*, which an earlier forwarder that has ended may have used.  Raises HostError.
        """
        with contextlib.ExitStack() as undo:
            try:
                ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                undo.callback(ours.close)
                with theirs:
                    for end in (ours, theirs):
                        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                            end.setsockopt(socket.SOL_SOCKET, option, LINK_BUFFER)
                    self._process = _start([*program, str(theirs.fileno()), str(uid)], theirs.fileno())
            except OSError as error:
                place = "" if error.filename is None else f"{error.filename}: "
                raise HostError(
                    f"the forwarder could not be started: {place}{error.strerror}; {advice.after(error)}"
                ) from error
            undo.pop_all()
        ours.setblocking(False)
        self._link = ours
        self._sending = trio.Lock()
        self._early: list[Report | None] = []
        self.packet_path = "interpreted"  # or "compiled", as it reports when it is ready
        self.lanes, self.aes = 1, ""
        self._output = output or ProcessOutput()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    async def send(self, command: Command, descriptors: Sequence[int] = ()) -> None:
        """Send a command to the forwarder; wait while the link is full.  Raises ForwarderGoneError."""
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
                    # Whatever it was, this command is lost, and the forwarder's state is incomplete.  The task that
                    # waits in receive() notices that, too, and starts another forwarder.
                    self.disconnect()
                    raise ForwarderGoneError from error
                else:
                    return

    def disconnect(self) -> None:
        """Close the link; its users notice that the forwarder is gone, and must stop() it."""
        with contextlib.suppress(OSError):
            self._link.shutdown(socket.SHUT_RDWR)

    async def get_ready(self) -> list[str]:
        """Wait until the forwarder reports that it is ready, and return its notes.  Raises ForwarderGoneError.

        A peer may call before that: reports about it wait for receive(), up to EARLY_REPORTS; a forwarder that reports
        more before it is ready is ended.
        """
        while len(self._early) < EARLY_REPORTS:
            for report in await self._read(1):
                if isinstance(report, Ready):
                    self.packet_path = "compiled" if report.is_compiled else "interpreted"
                    self.lanes, self.aes = report.lanes, report.aes
                    return report.notes
                self._early.append(report)
            await trio.lowlevel.checkpoint()  # so that other tasks run, and a time limit takes effect
        self.disconnect()
        raise ForwarderGoneError

    async def receive(self, most: int = 1) -> list[Report | None]:
        """Wait for reports and return those that have arrived, at least one and at most *most*.

        None stands for a message that is not a report.  Raises ForwarderGoneError.
        """
        if self._early:
            early, self._early = self._early[:most], self._early[most:]
            return early
        return await self._read(most)

    async def _read(self, most: int) -> list[Report | None]:
        reports: list[Report | None] = []
        size = 0
        while len(reports) < most and size < READ_BYTES:
            try:
                data = self._link.recv(MESSAGE_BYTES)
            except BlockingIOError:
                if reports:
                    break
                await self._wait(trio.lowlevel.wait_readable)
                continue
            except OSError as error:
                raise ForwarderGoneError from error
            size += len(data)
            if not data:
                if reports:
                    break  # the next call raises it
                raise ForwarderGoneError
            try:
                message = decode(data, ROWS)
            except OtherVersionError as error:
                self.disconnect()
                raise OtherReleaseError(
                    f"the installed forwarder speaks version {error.version} of the link, and this agent version "
                    f"{VERSION}: overlay was upgraded or downgraded while the agent ran; restart the agent"
                ) from None
            except PacketError:
                message = None
            reports.append(message if isinstance(message, Report) else None)
        return reports

    async def _wait(self, until: Callable[[socket.socket], Awaitable[None]]) -> None:
        try:
            await until(self._link)
        except trio.ClosedResourceError as error:
            raise ForwarderGoneError from error

    async def hear(self) -> None:
        """Log the output of the process, until it ends or stop() is called."""
        assert self._process.stdout is not None
        while True:
            try:
                await trio.lowlevel.wait_readable(self._process.stdout)
            except (
                trio.ClosedResourceError,
                ValueError,
            ):  # ValueError: stop() has closed it before we waited
                return
            if not self._read_output():
                return
            await trio.sleep(OUTPUT_PAUSE)

    def _read_output(self) -> bool:
        """Log what can be read from the process's output; return False at its end."""
        pipe = self._process.stdout
        if pipe is None or pipe.closed:
            return False
        try:
            data = os.read(pipe.fileno(), OUTPUT_BYTES)
        except BlockingIOError:
            return True
        self._log_output(self._output.feed(data, clock.now()))
        return bool(data)

    def _log_output(self, lines: Iterable[str]) -> None:
        for line in lines:
            log.error("forwarder wrote pid=%d: %s", self._process.pid, line)

    def _close_output(self) -> None:
        """Log what is left in the pipe, once, and close it."""
        pipe = self._process.stdout
        if pipe is None or pipe.closed:
            return
        self._read_output()
        self._log_output(self._output.end(clock.now()))
        trio.lowlevel.notify_closing(pipe)
        pipe.close()

    async def stop(self) -> str:
        """End the process and return how it ended, in words."""
        if self._link.fileno() != -1:
            trio.lowlevel.notify_closing(self._link)
            self._link.close()
        with trio.move_on_after(STOP_TIME) as patience:
            patience.shield = True
            while self._process.poll() is None:
                await trio.sleep(0.01)
        if self._process.poll() is None:
            self._process.kill()
        with trio.CancelScope(shield=True):  # a process with much memory takes a while to release it
            while self._process.poll() is None:
                await trio.sleep(0.01)
        self._close_output()
        code = self._process.returncode
        return f"killed by signal {-code}" if code < 0 else f"exit code {code}"


@dataclass(frozen=True, slots=True)
class Starter:
    """Starts forwarders, one after the other, under one user id, None for that of the agent.

    Together they may print no more than one.
    """

    uid: int | None
    output: ProcessOutput = field(default_factory=ProcessOutput)

    def __call__(self, program: Sequence[str] = PROGRAM) -> Forwarder:
        """Return a new forwarder.  Raises HostError."""
        uid = user_ids.USER_IDS[0] if self.uid is None else self.uid
        return Forwarder(program, uid, self.output)


@contextlib.contextmanager
def forwarders(directory: Path) -> Iterator[Starter]:
    """Yield a Starter with a user id that no other agent's forwarder has.

    The ids in use are locked in a file of *directory*.  Without root, every process runs as the same user.  Raises
    HostError.
    """
    if os.geteuid() != 0:
        yield Starter(None)
        return
    with contextlib.closing(user_ids.take(directory)) as taken:
        yield Starter(taken.uid)


def _start(command: Sequence[str], link: int) -> subprocess.Popen[bytes]:
    """Start *command* with the descriptor *link*, in a session of its own and without a terminal.

    A process with a terminal of the agent's session, or one as its output, can type into it (TIOCSTI), as root.  Ctrl-C
    there is only for the agent, which then closes the link.
    """
    process = subprocess.Popen(
        command,
        pass_fds=[link],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        bufsize=0,
        env={**os.environ, **ENVIRONMENT},
        start_new_session=True,
    )
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), False)
    return process
