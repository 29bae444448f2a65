from __future__ import annotations

import shutil
import subprocess
import sys
import textwrap
import tomllib
from typing import TYPE_CHECKING

import pytest

from tests.test_imports import ROOT

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

MUTATE = [sys.executable, "-W", "ignore", "-m", "scripts.mutate"]

MODULE = '''
"""A module with changes of every fate."""

from typing import cast


class Door:
    def __init__(self, limit: int = 3) -> None:
        self.limit = limit

    def admits(self, number: int) -> bool:
        return number < self.limit


def unseen(number):
    return number + 1


def drain(number):
    while number > 0:
        number -= 1
    return number


def apart():
    return 5


def unreached():
    return 1


def typed(number):
    return cast("int", number)


DOOR = Door()
'''

TESTS = """
import os

from overlay import example
from overlay.example import drain


def test_a_door_admits_two_of_three_by_default():
    door = example.Door()

    assert door.admits(2)
    assert not door.admits(4)
    assert door.limit == 3


def test_nothing_is_said_of_it():
    example.unseen(1)


def test_what_is_drained_is_empty():
    assert drain(3) == 0


def test_a_process_of_its_own_calls_it():
    child = os.fork()
    if not child:
        os._exit(example.apart() != 5)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_what_is_typed_stays_itself():
    assert example.typed(7) == 7


def test_that_fails():
    assert example.unseen(0) == 7
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of one module and its tests, with this project's scripts."""
    tmp_path = tmp_path_factory.mktemp("project")
    (tmp_path / "scripts").symlink_to(ROOT / "scripts")
    for name in ("overlay", "tests", "tests/overlay"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
    (tmp_path / "overlay" / "example.py").write_text(MODULE)
    (tmp_path / "tests" / "overlay" / "test_example.py").write_text(TESTS)
    (tmp_path / "tests" / "equivalent.toml").write_text(
        textwrap.dedent("""
            [[change]]
            module = "overlay/example.py"
            before = "return number < self.limit"
            after = "return number <= self.limit"
            why = "nobody counts"

            [[everywhere]]
            before = "+ 1"
            after = "- 1"
            why = "as good"
        """)
    )
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    return tmp_path


def mutate(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*MUTATE, *arguments], cwd=project, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def done(project: Path) -> subprocess.CompletedProcess[str]:
    """The run of all changes, which takes seconds, once."""
    return mutate(project, "overlay/example.py")


def test_each_change_is_counted_by_what_became_of_it(done):
    assert done.returncode == 1
    assert "- return number + 1\n  + return number + 2\n  in unseen: survived" in done.stdout
    assert "- return 1\n  + return 2\n  in unreached: reached by no test" in done.stdout
    assert "number < self.limit" not in done.stdout
    assert "number - 1" not in done.stdout
    assert (
        "11 of 13 changes noticed (84.6 %), 2 of them by a time-out; 2 not, 1 of them reached by no test; 2 equivalent"
    ) in done.stdout


def test_a_test_that_fails_without_a_change_is_named_and_notices_nothing(done):
    assert "test_example.py::test_that_fails fails without a change and was not used." in done.stderr


def test_tests_that_cannot_be_collected_are_shown_and_nothing_is_counted(project, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(project, broken, symlinks=True, ignore=shutil.ignore_patterns("mutants"))
    (broken / "tests" / "overlay" / "test_example.py").write_text("import overlay.gone\n")

    done = mutate(broken, "overlay/example.py")

    assert done.returncode == 1
    assert "No module named 'overlay.gone'" in done.stdout
    assert "the tests could not be run" in done.stderr
    assert "noticed" not in done.stdout


def test_every_change_that_is_called_equivalent_says_why_and_is_of_a_line_that_is_there():
    rows = tomllib.loads((ROOT / "tests" / "equivalent.toml").read_text())["change"]

    for row in rows:
        lines = [line.strip() for line in (ROOT / row["module"]).read_text().splitlines()]
        assert row["why"]
        assert row["before"] != row["after"]
        assert row["before"].splitlines()[0] in lines, row


def test_a_module_that_is_not_there_is_refused_in_one_sentence():
    done = mutate(ROOT, "overlay/none.py")

    assert done.returncode == 2
    assert "overlay/none.py is not a module or a folder of this project" in done.stderr


@pytest.fixture(scope="module")
def pick():
    from scripts import (
        mutate,  # not at the top: mutmut takes a second to load, which would slow every collection of tests
    )

    return mutate.pick


def test_a_sample_is_the_same_each_time_and_another_with_another_seed(pick):
    first = pick(range(500), 60, seed=0)

    assert pick(range(500), 60, seed=0) == first
    assert pick(range(500), 60, seed=1) != first
    assert len(set(first)) == 60
    assert set(first) <= set(range(500))


def test_a_sample_has_of_each_module_the_share_that_it_has_of_all_changes(pick):
    changes = ["large"] * 9000 + ["small"] * 1000

    sample = pick(changes, 1000, seed=3)

    assert 70 <= sample.count("small") <= 130


def test_fewer_changes_than_the_sample_are_all_tried(pick):
    assert pick(["one", "two"], 60, seed=0) == ["one", "two"]
    assert pick(["one", "two"], None, seed=0) == ["one", "two"]
    assert pick([], 60, seed=0) == []
