"""What a shell needs to complete commands."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
from click.testing import CliRunner

from overlay.cli import main
from overlay.cli.completion import SHELLS, VARIABLE


@pytest.mark.parametrize("shell", SHELLS)
def test_shell_gets_a_script_that_asks_overlay(shell):
    done = CliRunner().invoke(main, ["completion", shell])

    assert done.exit_code == 0
    assert f"{VARIABLE}={shell}_complete" in done.output


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_takes_it():
    script = CliRunner().invoke(main, ["completion", "bash"]).stdout

    subprocess.run(["bash", "-n"], input=script, text=True, check=True, timeout=60)


def test_commands_are_completed():
    environment = {**os.environ, VARIABLE: "bash_complete", "COMP_WORDS": "overlay serv", "COMP_CWORD": "1"}
    code = "import sys; sys.argv[0] = 'overlay'; from overlay.cli import main; main(prog_name='overlay')"

    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False, timeout=60
    )

    assert sorted(done.stdout.split()) == ["plain,service", "plain,services"]


def test_other_shell_is_refused():
    assert CliRunner().invoke(main, ["completion", "tcsh"]).exit_code == 2
