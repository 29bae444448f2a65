from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import Any, cast

from tests.parallel import FileScheduling
from tests.test_imports import ROOT

OUTCOMES = """
import pytest

@pytest.fixture
def broken_before():
    raise LookupError("before")

@pytest.fixture
def broken_after():
    yield
    raise LookupError("after")

def test_passes(): pass
def test_fails(): raise AssertionError("during")
def test_is_skipped(): pytest.skip("a reason")
def test_has_no_setup(broken_before): pass
def test_has_no_teardown(broken_after): pass
"""


class Worker:
    """A worker that only notes what it is asked for."""

    shutting_down = False

    def __init__(self, name: str) -> None:
        self.gateway = SimpleNamespace(id=name)
        self.asked: list[int] = []

    def send_runtest_some(self, indices: list[int]) -> None:
        self.asked += indices

    def shutdown(self) -> None:
        self.shutting_down = True


def scheduled(names: list[str], count: int) -> tuple[FileScheduling, list[Worker]]:
    """Return a scheduling of the tests *names* for *count* workers, which has given out the first files."""
    workers = [Worker(f"gw{number}") for number in range(count)]
    config = SimpleNamespace(
        getvalue=lambda _: [f"{count}*popen"], option=SimpleNamespace(loadscopereorder=False, debug=False)
    )
    scheduling = FileScheduling(cast("Any", config))
    for worker in workers:
        scheduling.add_node(cast("Any", worker))
    for worker in workers:
        scheduling.add_node_collection(cast("Any", worker), names)
    scheduling.schedule()
    return scheduling, workers


def test_every_test_is_given_once_and_files_stay_whole_and_in_order():
    names = [f"test_{file}.py::test_{number}" for file in range(9) for number in range(1 + file)]
    scheduling, workers = scheduled(names, 2)

    done = [0, 0]
    while any(done[each] < len(worker.asked) for each, worker in enumerate(workers)):
        for each, worker in enumerate(workers):
            if done[each] < len(worker.asked):
                scheduling.mark_test_complete(cast("Any", worker), worker.asked[done[each]])
                done[each] += 1

    assert sorted(workers[0].asked + workers[1].asked) == list(range(len(names)))
    assert all(worker.asked == sorted(worker.asked) for worker in workers)
    of = [{names[index].partition("::")[0] for index in worker.asked} for worker in workers]
    assert not of[0] & of[1]
    assert all(of)
    assert all(worker.shutting_down for worker in workers)
    assert scheduling.tests_finished
    assert not scheduling.has_pending


def test_what_a_worker_had_not_done_goes_to_others_when_it_dies():
    names = [f"test_{file}.py::test_{number}" for file in range(8) for number in range(3)]
    scheduling, (one, other) = scheduled(names, 2)
    for number in range(4):
        scheduling.mark_test_complete(cast("Any", one), one.asked[number])

    crashed = scheduling.remove_node(cast("Any", one))
    for index in other.asked:  # which grows
        scheduling.mark_test_complete(cast("Any", other), index)

    assert crashed == names[one.asked[4]]
    assert set(one.asked[:4]) | set(other.asked) == set(range(len(names)))
    assert not set(one.asked[:3]) & set(other.asked), "a file that was done is done again"


def test_a_worker_reports_whatever_did_not_pass(tmp_path):
    (tmp_path / "test_outcomes.py").write_text(OUTCOMES)
    (tmp_path / "conftest.py").write_text(
        "from tests.conftest import pytest_runtest_protocol, pytest_xdist_make_scheduler"
    )

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-n1", "--dist", "loadfile", "-p", "no:randomly", "-ra", tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert "1 failed, 2 passed, 1 skipped, 2 errors" in done.stdout, done.stdout + done.stderr
    for reason in ("during", "before", "after", "a reason"):
        assert reason in done.stdout
