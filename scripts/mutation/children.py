"""Forks of this process that may use a bounded amount of memory, and that leave nothing behind."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import traceback
from typing import TYPE_CHECKING, Generic, NoReturn, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MEMORY = 6 * 2**30  # bytes of address space
FILE = 256 * 2**20  # bytes of a file that a child writes

BROKEN = 70  # the exit status of a child whose work raised

T = TypeVar("T")


class Children(Generic[T]):
    """Forks of this process, each identified by a value of the caller; those that still run at the end are killed.

    The output of a child is lost, except for the traceback if its work raises, which is in *errors*.
    """

    def __init__(self, errors: Path) -> None:
        self._errors = errors
        self._running = dict[int, T]()

    def __len__(self) -> int:
        """Return how many are running."""
        return len(self._running)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for child in self._running:
            _end_group(child)
            os.waitpid(child, 0)

    def start(self, value: T, work: Callable[[], int]) -> None:
        """Run *work* in a child, whose exit status is what it returns."""
        child = os.fork()
        if not child:
            self._work(work)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.setpgid(child, child)  # here and in the child, so that it is true whichever comes first
        self._running[child] = value

    def wait(self) -> tuple[T, int]:
        """Wait for a child to end, end what it started, and return its value and its exit status.

        The status is negative for one that died of a signal.  Raises ChildProcessError if its work raised.
        """
        child, status = os.waitpid(-1, 0)
        _end_group(child)
        code = os.waitstatus_to_exitcode(status)
        value = self._running.pop(child)
        if code == BROKEN:
            raise ChildProcessError(f"{value}: {self._errors.read_text()}")
        return value, code

    def _work(self, work: Callable[[], int]) -> NoReturn:
        status = BROKEN
        try:
            os.setpgid(0, 0)
            null = os.open(os.devnull, os.O_RDWR)
            for descriptor in (0, 1, 2):
                os.dup2(null, descriptor)
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            resource.setrlimit(resource.RLIMIT_FSIZE, (FILE, FILE))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets it, too, and ends the groups
            status = work()
        except BaseException:  # noqa: BLE001  it cannot leave a fork
            self._errors.write_text(traceback.format_exc())
        finally:
            os._exit(status)


def _end_group(child: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)
