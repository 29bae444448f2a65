from __future__ import annotations

import subprocess
import sys
import tomllib

from scripts.mutate import pick
from tests.test_imports import ROOT

MUTATE = [sys.executable, str(ROOT / "scripts" / "mutate.py")]


def test_every_change_that_is_called_equivalent_says_why_and_is_of_a_line_that_is_there():
    rows = tomllib.loads((ROOT / "tests" / "equivalent.toml").read_text())["change"]

    for row in rows:
        lines = [line.strip() for line in (ROOT / row["module"]).read_text().splitlines()]
        assert row["why"]
        assert row["before"] != row["after"]
        assert row["before"].splitlines()[0] in lines, row


def test_a_module_that_is_not_there_is_refused_in_one_sentence():
    done = subprocess.run([*MUTATE, "overlay/none.py"], capture_output=True, text=True, check=False)

    assert done.returncode == 2
    assert "overlay/none.py is not a module or a folder of this project" in done.stderr


def test_a_sample_is_the_same_each_time_and_another_with_another_seed():
    names = [f"overlay.some.x_do__mutmut_{number}" for number in range(500)]

    first = pick(names, 60, seed=0)

    assert pick(names, 60, seed=0) == first
    assert pick(names, 60, seed=1) != first
    assert len(set(first)) == 60
    assert set(first) <= set(names)


def test_a_module_with_fewer_changes_than_the_sample_is_tried_as_a_whole():
    names = ["overlay.some.x_do__mutmut_1", "overlay.some.x_do__mutmut_2"]

    assert pick(names, 60, seed=0) == names
    assert pick(names, None, seed=0) == names
    assert pick([], 60, seed=0) == []
