"""Agents of tests without loading time: one Python process that has imported everything forks for each of them.

Loading takes an agent half a second of processor time and its forwarder a third of one, which is most of what they
compute where a test lives for a second, and a run of all tests starts a thousand.  A forked process is set up as by
``ip netns exec``: it has the network namespace with its own /sys, the files in /etc/netns, and a session of its own;
its forwarder is a separate process without privileges, too.

Tests of how the programs start, and of what is available to them then, start the programs: see
Network(is_forked=False). tests.netns.forks starts this process, and is its client.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import io
import json
import os
import select
import signal
import socket
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from overlay import agent  # noqa: F401  to have them loaded
from overlay.__main__ import main as overlay  # noqa: F401
from overlay.cli import up  # noqa: F401
from overlay.forwarding import __main__ as forwarding
from overlay.supervision import forwarder
from tests.netns import director, ordinary  # noqa: F401

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Sequence

REQUEST_BYTES = 64 * 1024

# linux/sched.h, linux/mount.h
CLONE_NEWNS, CLONE_NEWNET = 0x00020000, 0x40000000
MS_BIND, MS_REC, MS_SLAVE, MNT_DETACH = 1 << 12, 1 << 14, 1 << 19, 2

_libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    """Fork on request, and report each exit code, until no client is left."""
    requests = socket.socket(fileno=int(sys.argv[1]))
    gc.collect()
    gc.freeze()  # what was loaded stays: a collection in a fork would copy all of it
    ended, wakeup = socket.socketpair()
    ended.setblocking(False)
    wakeup.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakeup.fileno())
    children: dict[int, socket.socket] = {}
    while True:
        readable = select.select([requests, ended], [], [])[0]
        if ended in readable:
            ended.recv(4096)
            _tell_ends(children)
        if requests not in readable:
            continue
        data, descriptors, *_ = socket.recv_fds(requests, REQUEST_BYTES, 4)
        if not data:
            return
        end = socket.socket(fileno=descriptors[0])
        pid = os.fork()
        if not pid:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for each in (requests, ended, wakeup, *children.values()):
                each.close()
            _become(json.loads(data), end, descriptors[1:])
            return
        children[pid] = end
        for each in descriptors[1:]:
            os.close(each)


def _tell_ends(children: dict[int, socket.socket]) -> None:
    with suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            with children.pop(pid) as end, suppress(OSError):
                end.send(str(os.waitstatus_to_exitcode(status)).encode())


def _become(request: dict[str, Any], end: socket.socket, standard: list[int]) -> None:
    """Run as the requested process."""
    os.setsid()
    os.chdir(request["directory"])
    os.environ.update(request["environment"])
    _enter(request["namespace"])
    if request["user"] is not None:
        ordinary.become(**request["user"])
    _use(*standard)
    if request["may_forward"]:
        forwarder._start = Spare().start
    with end:
        end.send(str(os.getpid()).encode())
    sys.argv = request["arguments"]
    _run(lambda: exec(request["code"], {"__name__": "__main__"}))


def _run(program: Callable[[], object]) -> NoReturn:
    """Run *program* and exit as Python would, but let the kernel free what was loaded.

    Python would visit all of it, which first copies each page that the process shares with the server: twenty times the
    cost of the fork.
    """
    code: Any = None
    try:
        program()
    except SystemExit as end:
        code = end.code
    except Exception:  # noqa: BLE001  whatever it is
        sys.excepthook(*sys.exc_info())
        code = 1
    if code is not None and not isinstance(code, int):
        sys.stderr.write(f"{code}\n")
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]  # it waits for threads
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit((code or 0) & 0xFF)


def _enter(namespace: str) -> None:
    """Set up the process as ``ip netns exec`` does."""
    with Path("/run/netns", namespace).open() as there:
        _call("setns", there.fileno(), CLONE_NEWNET)
    _call("unshare", CLONE_NEWNS)
    _call("mount", b"", b"/", b"none", MS_SLAVE | MS_REC, None)
    _call("umount2", b"/sys", MNT_DETACH)
    _call("mount", namespace.encode(), b"/sys", b"sysfs", 0, None)
    for file in Path("/etc/netns", namespace).glob("*"):
        _call("mount", bytes(file), b"/etc/" + file.name.encode(), b"none", MS_BIND, None)


def _call(name: str, *arguments: Any) -> None:
    if getattr(_libc, name)(*arguments) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")


def _use(*standard: int) -> None:
    for number, descriptor in enumerate(standard):
        os.dup2(descriptor, number)
    for descriptor in set(standard):
        os.close(descriptor)


class Spare:
    """A forwarder that is forked before its agent does anything, and waits until that starts one.

    It shares nothing with the agent.  Later forwarders of the agent are the program itself.
    """

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._start = forwarder._start
        self.stdout: io.FileIO | None = None
        self.returncode: int | None = None
        self.pid = os.fork()
        if not self.pid:
            self._socket.close()
            self._wait_to_forward(theirs)
        theirs.close()

    def start(self, command: Sequence[str], link: int) -> Spare | subprocess.Popen[bytes]:
        """Start *command* instead of overlay.supervision.forwarder: in this process, if it is still unused and this is
        its command.
        """
        if self.stdout is not None or tuple(command[:-2]) != forwarder.PROGRAM:
            return self._start(command, link)
        output, writes = os.pipe()
        socket.send_fds(self._socket, [command[-1].encode()], [link, writes])
        self._socket.close()
        os.close(writes)
        os.set_blocking(output, False)
        self.stdout = io.FileIO(output)
        return self

    def poll(self) -> int | None:
        """Return the exit code; None while it runs."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def kill(self) -> None:
        """Kill it, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

    def _wait_to_forward(self, start: socket.socket) -> NoReturn:
        os.setsid()
        with start:
            uid, descriptors, *_ = socket.recv_fds(start, REQUEST_BYTES, 2)
        if uid:
            link, output = descriptors
            _use(os.open(os.devnull, os.O_RDONLY), output, os.dup(output))
            sys.argv = ["overlay.forwarding", str(link), uid.decode()]
            _run(forwarding.main)
        os._exit(0)


if __name__ == "__main__":
    main()
