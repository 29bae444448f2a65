"""A process that runs one program, and ends everything that the program started, even what has left its session.

    python -I -S keeper.py USER GROUP PROGRAM

USER and GROUP are numbers, or - for those of this process.  The program has our standard input, environment and working
directory, a session of its own, and no output.  One line is written to our standard output: ``exit STATUS``, negative
for a signal, or ``error ERRNO`` if the program could not be started.  SIGTERM ends the program early.

A process below this one that loses its parent becomes a child of this one (PR_SET_CHILD_SUBREAPER of prctl(2)), so
nothing escapes by setsid() or by starting something and ending.  This is a separate program because an agent with
threads must not fork.  It loads only the standard library, and runs without privileges if it is started without them.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import signal
import sys
import time
from pathlib import Path

# Specification (Linux include/uapi/linux/prctl.h)
PR_SET_CHILD_SUBREAPER = 36

# Ours
PATIENCE = 2.0  # seconds between SIGTERM and SIGKILL
LAST_PATIENCE = 2.0  # seconds for killed processes to be gone: meanwhile they may start others
LOOK = 0.05  # seconds between two checks of what is left
HEEDED = {signal.SIGCHLD, signal.SIGTERM}


def main(user: str, group: str, program: str) -> None:
    """Run *program*, and print how it ended."""
    signal.pthread_sigmask(signal.SIG_BLOCK, HEEDED)
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "PR_SET_CHILD_SUBREAPER")
    report = os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    os.dup2(nothing, 1)
    read_end, write_end = os.pipe()  # closed by the start of the program; otherwise it carries the error
    pid = os.fork()
    if not pid:
        _become(program, None if user == "-" else int(user), None if group == "-" else int(group), write_end)
    os.dup2(nothing, 0)  # the writer of the program's input notices when the program stops reading
    os.close(write_end)
    failure = os.read(read_end, 16)
    status = None if failure else _wait(pid)
    status = _end_all(pid, status)
    os.write(report, (b"error %s" % failure if failure else b"exit %d" % (status or 0)) + b"\n")


def _become(program: str, user: int | None, group: int | None, report: int) -> None:
    """Become *program* as *user* and *group*, in a process made for it; or write the error, and end."""
    try:
        os.setsid()
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        for each in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them
            signal.signal(each, signal.SIG_DFL)
        if user is not None:
            os.setgroups([])
        if group is not None:
            os.setresgid(group, group, group)
        if user is not None:
            os.setresuid(user, user, user)
        # Python sets this variable if there is no locale
        environment = {name: value for name, value in os.environ.items() if name != "LC_CTYPE"}
        os.execve(program, [program], environment)  # noqa: S606  that is what it is for
    except OSError as error:
        os.write(report, b"%d" % (error.errno or errno.EIO))
    finally:
        os._exit(127)


def _wait(pid: int) -> int | None:
    """Wait for the exit status of *pid* and return it; None as soon as *pid* must be ended."""
    while True:
        for each, status in _reap():
            if each == pid:
                return status
        if signal.sigwait(HEEDED) == signal.SIGTERM:
            return None


def _reap() -> list[tuple[int, int]]:
    """Return the children that have ended, with their exit statuses."""
    ended: list[tuple[int, int]] = []
    with contextlib.suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            ended.append((found[0], os.waitstatus_to_exitcode(found[1])))
    return ended


def _end_all(pid: int, status: int | None) -> int | None:
    """End the session of *pid* and everything that came from it; return the exit status of *pid*, if known."""
    for how, patience in ((signal.SIGTERM, PATIENCE), (signal.SIGKILL, LAST_PATIENCE)):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, how)
        told, until = set[int](), time.monotonic() + patience
        while True:
            status = next((code for each, code in _reap() if each == pid), status)
            left = _children()
            if not left:
                return status
            for each in left if how == signal.SIGKILL else left - told:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(each, how)
            told |= left
            if time.monotonic() >= until:
                break
            signal.sigtimedwait({signal.SIGCHLD}, LOOK)
    return status


def _children() -> set[int]:
    """Return our children; orphaned descendants of the program are among them."""
    own = os.getpid()
    try:
        return set(map(int, Path(f"/proc/self/task/{own}/children").read_text("ascii").split()))
    except OSError:  # a kernel without CONFIG_PROC_CHILDREN
        return {int(each) for each in os.listdir("/proc") if each.isdigit() and _parent(each) == own}


def _parent(pid: str) -> int | None:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[1])
    except (OSError, IndexError):
        return None


if __name__ == "__main__":
    main(*sys.argv[1:])
