from __future__ import annotations

import subprocess
import sys
import tomllib

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
