"""A process that continues in the background once it is ready, as with daemon(7), so that its caller knows the
result.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import struct
import sys
import traceback
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

# Ours
CREDENTIALS = struct.Struct("=iII")  # struct ucred of unix(7): process, user, group
CHUNK = 4096  # bytes


def go_on_in_background(run: Callable[[], int]) -> int:
    """Continue *run* in a separate process; return 0 as soon as that reports by NOTIFY_SOCKET that it is ready.

    If it ends earlier, its standard error is written here, and its exit code is returned.  Once ready, it shares
    nothing with the caller: no terminal, no directory, no standard streams.
    """
    ready = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    ready.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    ready.bind("")  # an abstract name that the kernel chooses
    said, says = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(said)
        name = ready.getsockname()
        ready.close()
        os.environ["NOTIFY_SOCKET"] = "@" + os.fsdecode(name[1:])
        _detach(says)
        os._exit(_run(run))
    os.close(says)
    with ready:
        if _is_ready(ready, said, process):
            return 0
    _, status = os.waitpid(process, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code > 0 else 1


def _run(run: Callable[[], int]) -> int:
    try:
        return run()
    except BaseException:  # noqa: BLE001  what ends a process of Python, told where its output goes
        traceback.print_exc()
        return 1


def _detach(stderr: int) -> None:
    """Leave the caller's session and directory, with only *stderr* to report to it."""
    os.setsid()
    os.chdir("/")
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor, target in ((nothing, 0), (nothing, 1), (stderr, 2)):
        os.dup2(descriptor, target)
    for descriptor in (nothing, stderr):
        if descriptor > 2:
            os.close(descriptor)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def _is_ready(ready: socket.socket, said: int, process: int) -> bool:
    """Wait until *process* reports that it is ready, or has ended; pass on its output until then."""
    while True:
        readable, _, _ = select.select([ready.fileno(), said], [], [])
        if ready.fileno() in readable:
            data, ancillary, _, _ = ready.recvmsg(CHUNK, socket.CMSG_SPACE(CREDENTIALS.size))
            if b"READY=1" in data.split(b"\n") and _sender(ancillary) == process:
                return True
        if said in readable:
            text = os.read(said, CHUNK)
            if not text:
                return False
            sys.stderr.buffer.write(text)
            sys.stderr.flush()


def _sender(ancillary: list[tuple[int, int, bytes]]) -> int | None:
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
            process, _, _ = CREDENTIALS.unpack(data[: CREDENTIALS.size])
            return int(process)
    return None
