from __future__ import annotations

import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from scripts.mutation.children import MEMORY, Children

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def children(tmp_path: Path):
    with Children[str](tmp_path / "error") as children:
        yield children


def _has_ended(pid: int) -> bool:
    """Return whether *pid* has ended, or is a zombie of the process that adopted it."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_a_child_is_known_by_its_value_and_says_how_it_ended(children):
    children.start("first", lambda: 3)

    assert children.wait() == ("first", 3)
    assert len(children) == 0


def test_a_child_that_dies_of_a_signal_says_which(children):
    children.start("first", lambda: os.kill(os.getpid(), signal.SIGTERM))

    assert children.wait() == ("first", -signal.SIGTERM)


def test_work_that_raises_is_an_error_with_its_traceback(children):
    def work() -> int:
        raise ValueError("what went wrong")

    children.start("first", work)

    with pytest.raises(ChildProcessError, match=r"first: (.|\n)*ValueError: what went wrong"):
        children.wait()


def test_what_a_child_started_ends_with_it(children, tmp_path):
    def work() -> int:
        (tmp_path / "pid").write_text(str(subprocess.Popen(["sleep", "600"]).pid))
        return 0

    children.start("first", work)
    children.wait()

    pid = int((tmp_path / "pid").read_text())
    while not _has_ended(pid):
        time.sleep(0.01)


def test_children_that_still_run_at_the_end_are_killed(tmp_path):
    with Children[str](tmp_path / "error") as children:
        children.start("first", lambda: time.sleep(600))
        pid = next(iter(children._running))

    assert _has_ended(pid)


def test_a_child_cannot_use_all_memory(children):
    def work() -> int:
        try:
            bytearray(MEMORY)
        except MemoryError:
            return 5
        return 0

    children.start("first", work)

    assert children.wait() == ("first", 5)
