"""Processes that tests.netns.forkserver forks, as their clients see them."""

from __future__ import annotations

import atexit
import functools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from overlay.supervision.forwarder import ENVIRONMENT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.netns.topology import Namespace

ROOT = Path(__file__).parents[2]
KILLED = -signal.SIGKILL
COMMAND_PATIENCE = 60.0  # seconds for one command, as in tests.netns.topology


class Forked:
    """A process that the server has forked, with the interface of subprocess.Popen."""

    stderr = None

    def __init__(self, arguments: list[str], end: socket.socket) -> None:
        """Wait until the process is in its namespace.  *end* reports its pid, and later its exit code."""
        self.stdin: TextIO | None = None
        self.stdout: TextIO | None = None
        self.args, self._end = arguments, end
        self.returncode: int | None = None
        said = end.recv(16)
        assert said, f"{' '.join(arguments)} could not be forked: see what is on stderr"
        self.pid = int(said)

    def poll(self) -> int | None:
        """Return the exit code, negative for the signal that ended it; None while it runs."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the exit code and return it.  Raises subprocess.TimeoutExpired."""
        if self.returncode is None:
            if not select.select([self._end], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            self.returncode = int(self._end.recv(16) or KILLED)
            self._end.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):  # the server has reaped it since
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


class Server:
    """A client of the server."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.netns.forkserver", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                cwd=ROOT,
                env={**os.environ, **ENVIRONMENT},
                start_new_session=True,
            )
        self._socket = ours
        atexit.register(self.close)

    def close(self) -> None:
        """Stop the server.  Its forked processes continue to run."""
        self._socket.close()
        self._process.wait()

    def fork(
        self,
        namespace: Namespace,
        code: str,
        arguments: list[str],
        standard: tuple[int, int, int],
        *,
        may_forward: bool = True,
        environment: Mapping[str, str] = {},
    ) -> Forked:
        """Return a process in *namespace* that runs *code* with *arguments*; its lab ends it if necessary.

        If it *may_forward*, the first forwarder that it starts is forked, too.  *environment* is added to that of the
        tests.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            request = {
                "namespace": namespace.full_name,
                "code": code,
                "arguments": arguments,
                "directory": str(Path.cwd()),
                "environment": {**os.environ, **environment},
                "may_forward": may_forward,
                "user": namespace.user,
            }
            descriptors = [theirs.fileno(), *standard]
            socket.send_fds(self._socket, [json.dumps(request).encode()], descriptors)
        process = Forked(arguments, ours)
        namespace.lab.processes.append(process)
        return process

    def completed(
        self,
        namespace: Namespace,
        code: str,
        arguments: list[str],
        *,
        environment: Mapping[str, str] = {},
    ) -> subprocess.CompletedProcess[str]:
        """Run such a process to its end, and return it with its output.  Raises subprocess.TimeoutExpired."""
        with (
            Path(os.devnull).open() as nothing,
            tempfile.TemporaryFile("w+") as out,
            tempfile.TemporaryFile("w+") as err,
        ):
            standard = nothing.fileno(), out.fileno(), err.fileno()
            process = self.fork(
                namespace, code, arguments, standard, may_forward=False, environment=environment
            )
            try:
                exit_code = process.wait(COMMAND_PATIENCE)
            except BaseException:
                namespace.lab.end_process(process)
                raise
            namespace.lab.processes.remove(process)
            out.seek(0)
            err.seek(0)
            return subprocess.CompletedProcess(arguments, exit_code, out.read(), err.read())

    def converse(self, namespace: Namespace, code: str) -> Forked:
        """Return such a process, whose stdin and stdout are pipes to this one."""
        (reads, orders), (told, writes) = os.pipe(), os.pipe()
        try:
            process = self.fork(namespace, code, ["-c"], (reads, writes, 2))
            process.stdin, process.stdout = os.fdopen(orders, "w"), os.fdopen(told)
        finally:
            os.close(reads)
            os.close(writes)
        return process


@functools.cache
def server() -> Server:
    """Return the server of this process; the first call starts it."""
    return Server()
