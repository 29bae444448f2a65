from __future__ import annotations

import os
import subprocess
import sys

import pytest

from overlay.host import priority
from overlay.host.priority import NICE, IdleTime

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may raise a limit: run as root")


def nice_of(code):
    """Run *code* in a process of its own and return which priority it has in the end."""
    program = f"import os; from overlay.host import priority, privileges\n{code}\nprint(os.getpriority(os.PRIO_PROCESS, 0))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return int(done.stdout)


@needs_root
def test_process_with_the_capability_goes_first():
    assert nice_of("privileges.keep_only([privileges.Capability.SYS_NICE]); priority.prefer()") == NICE


@needs_root
def test_process_that_goes_before_others_already_is_left_so():
    assert nice_of("os.setpriority(os.PRIO_PROCESS, 0, -15); priority.prefer()") == -15


def test_process_without_it_stays_as_it_is():
    before = os.getpriority(os.PRIO_PROCESS, 0)

    assert nice_of("privileges.keep_only([]); priority.prefer()") == before


def test_idle_time_grows_and_is_that_of_all_processors():
    idle = IdleTime()
    before = idle.seconds()

    assert 0 < before <= idle.seconds()
    idle.close()
    assert idle.seconds() == 0


def test_idle_time_of_a_kernel_that_does_not_tell_is_none(monkeypatch, tmp_path):
    for path in (tmp_path / "nothing", tmp_path):
        monkeypatch.setattr(priority, "UPTIME", str(path))
        assert IdleTime().seconds() == 0
