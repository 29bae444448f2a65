"""The script that runs the tests tells how, and runs none for that."""

from __future__ import annotations

import subprocess

import pytest

from tests.test_imports import ROOT


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_is_printed_and_nothing_is_run(option):
    done = subprocess.run(
        [ROOT / "scripts/test", option], capture_output=True, text=True, check=False, timeout=60
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert "scripts/test [--quick | --thorough] [ARGUMENTS OF PYTEST ...]" in done.stdout
    assert done.stdout.endswith("are skipped and named.\n")
