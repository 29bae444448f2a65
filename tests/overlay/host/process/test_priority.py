from __future__ import annotations

import ctypes
import os
import platform

import pytest

from overlay.host.process import priority, privileges
from overlay.host.process.priority import ATTRIBUTES, CALLS, NICE, SLICE, IdleTime
from tests import forked

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may raise a limit: run as root")


def run(code, shown):
    """Run *code* in a separate process and return the number that is *shown* there in the end."""
    names = {"os": os, "priority": priority, "privileges": privileges, "slice_ns": slice_ns}
    done = forked.run(lambda: exec(f"{code}\nprint({shown})", names))
    assert (done.returncode, done.stderr) == (0, "")
    return int(done.stdout)


def nice_of(code):
    """Run *code* in a separate process and return its priority in the end."""
    return run(code, "os.getpriority(os.PRIO_PROCESS, 0)")


def slice_ns():
    """Return the slice of this thread; 0 where the kernel reports none."""
    told = ctypes.create_string_buffer(ATTRIBUTES.size)
    call = CALLS[platform.machine()][1]
    assert ctypes.CDLL(None).syscall(call, 0, told, ATTRIBUTES.size, 0) == 0
    return ATTRIBUTES.unpack(told.raw)[5]


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


has_slices = pytest.mark.skipif(
    platform.machine() not in CALLS or not slice_ns(),
    reason="needs Linux 6.12, which has a slice for each program",
)


@has_slices
def test_process_has_a_short_slice_even_without_the_capability():
    assert run("priority.prefer()", "slice_ns()") == SLICE
    assert run("privileges.keep_only([]); priority.prefer()", "slice_ns()") == SLICE


@has_slices
def test_threads_that_it_starts_have_the_slice_as_well():
    threads = "__import__('concurrent.futures').futures.ThreadPoolExecutor()"

    assert run("priority.prefer()", f"{threads}.submit(slice_ns).result()") == SLICE


@pytest.mark.slow
@has_slices
def test_process_with_another_policy_is_left_with_it():
    batch = "os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))"

    assert run(f"{batch}; priority.prefer()", "os.sched_getscheduler(0)") == os.SCHED_BATCH
    assert run(f"{batch}; priority.prefer()", "slice_ns()") != SLICE


def test_machine_of_another_kind_is_no_trouble():
    nice_of("priority.CALLS.clear(); priority.prefer()")
