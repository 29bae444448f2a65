from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

from tests import conftest
from tests.test_imports import ROOT

BACKGROUND_JOB = """
import signal, subprocess, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
import tests.conftest
waiting = "import time; print(flush=True); [time.sleep(0.1) for _ in range(3000)]"  # pause() may begin behind the signal
child = subprocess.Popen([sys.executable, "-c", waiting], stdout=subprocess.PIPE)
child.stdout.readline()
child.send_signal(signal.SIGINT)
sys.exit(child.wait(60) != -signal.SIGINT and child.returncode != 130)
"""


def test_what_a_test_starts_can_be_interrupted_when_the_tests_are_a_job_in_the_background():
    done = subprocess.run(
        [sys.executable, "-c", BACKGROUND_JOB], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
    assert done.returncode == 0, done.stderr


def test_a_first_look_takes_the_same_few_cases_of_each_test_in_any_order():
    cases = [SimpleNamespace(nodeid=f"test_a.py::test_many[{number}]") for number in range(100)]
    others = [
        SimpleNamespace(nodeid="test_a.py::test_one"),
        SimpleNamespace(nodeid="test_b.py::test_many[1]"),
    ]

    taken, left = conftest.few_cases([others[0], *cases, others[1]])
    again, _ = conftest.few_cases([*reversed(cases), *others])

    assert {id(each) for each in taken} == {id(each) for each in again}
    assert len([each for each in taken if each not in others]) == conftest.FEW_CASES
    assert [each for each in taken if each in others] == others
    assert len(taken) + len(left) == 102


def test_files_that_wait_are_spread_among_those_that_compute_and_long_ones_are_first():
    waiting = [Path(f"netns/test_{number}.py") for number in range(9)] + [Path("netns/test_reload.py")]
    computing = [Path(f"unit/test_{number}.py") for number in range(49)] + [Path("unit/test_fuzz.py")]

    place = conftest.spread([*computing, *waiting], set(waiting))

    order = sorted(place, key=place.__getitem__)
    assert {"test_reload.py", "test_fuzz.py"} == {path.name for path in order[:2]}
    halves = [sum(path in waiting for path in half) for half in (order[:15], order[15:30])]
    assert 3 < min(halves) <= max(halves) < 8
    assert not set(order[30:]) & set(waiting)
    assert len(order) == 60
