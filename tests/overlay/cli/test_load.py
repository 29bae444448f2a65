from __future__ import annotations

import os

import pytest

from overlay.cli.load import BUSY, Load, describe

TICK = os.sysconf("SC_CLK_TCK")


def write(processes, thread, seconds, name="overlay forwarder) ("):
    path = processes / "7" / "task" / str(thread)
    path.mkdir(parents=True, exist_ok=True)
    half = int(seconds * TICK / 2)
    (path / "stat").write_text(f"{thread} ({name}) R {' '.join(['0'] * 10)} {half} {half} 0 0\n")


def read(processes, now):
    return Load.read(7, now, processes)


@pytest.mark.parametrize(("used", "is_busy"), [(3.0, True), (2.0, False)])
def test_thread_that_uses_a_whole_processor_is_busy(tmp_path, used, is_busy):
    write(tmp_path, 7, 10)
    write(tmp_path, 8, 100)
    before = read(tmp_path, 1000.0)
    write(tmp_path, 8, 100 + used)

    finding = describe(7, before, read(tmp_path, 1003.0))

    assert (finding is not None) == is_busy
    if finding is not None:
        assert (finding.name, "uses 100 % of a processor" in finding.problem) == ("forwarder_busy", True)


def test_thread_that_came_meanwhile_does_not_count(tmp_path):
    write(tmp_path, 7, 10)
    before = read(tmp_path, 1000.0)
    write(tmp_path, 8, 100)

    assert read(tmp_path, 1001.0).busiest_since(before) == 0.0


@pytest.mark.parametrize("text", ["", "nonsense", "7 (x) R 1 2", "7 (x) R" + " x" * 20])
def test_what_is_not_understood_is_left_out(tmp_path, text):
    write(tmp_path, 7, 10)
    (tmp_path / "7" / "task" / "7" / "stat").write_text(text)

    assert read(tmp_path, 1000.0).used == {}


@pytest.mark.parametrize("pid", [None, 2**30])
def test_process_that_is_gone_uses_nothing(pid):
    before = Load.read(pid, 0.0)

    assert describe(pid, before, Load.read(pid, 1.0)) is None


def test_this_process_is_read_as_it_is():
    before = Load.read(os.getpid(), 0.0)

    assert before.used
    # As if a second later: the kernel counts in hundredths of a second, many times the time that really passes here.
    assert 0.0 <= Load.read(os.getpid(), 1.0).busiest_since(before) < BUSY
