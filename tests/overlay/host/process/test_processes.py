from __future__ import annotations

import os
import subprocess
import time

from overlay.host import clock
from overlay.host.process import processes


def test_this_process_takes_what_it_may_see():
    used = processes.usage(os.getpid())

    assert used.cpu > 0
    assert used.resident > 1_000_000
    assert used.threads >= 1
    assert used.descriptors == len(os.listdir("/proc/self/fd"))
    assert used.most_descriptors >= used.descriptors
    assert 0 < used.started < clock.now()


def test_name_of_a_program_may_hold_anything(tmp_path):
    program = tmp_path / "a) R 1 (b"
    program.symlink_to("/bin/sleep")
    with subprocess.Popen([str(program), "1000"]) as child:
        try:
            deadline = time.monotonic() + 60
            while (used := processes.usage(child.pid)) is None and time.monotonic() < deadline:
                time.sleep(0.01)
            assert used.threads == 1
        finally:
            child.kill()


def test_process_that_is_gone_takes_nothing():
    with subprocess.Popen(["/bin/true"]) as child:
        pid = child.pid
    assert processes.usage(pid) is None


def test_wall_time_of_now_is_now():
    # Between two clocks, a busy machine may let others run.
    assert min(abs(processes.wall_time(clock.now()) - time.time()) for _ in range(20)) < 0.1
