"""What a shell needs to complete commands."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
from click.shell_completion import ShellComplete
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


BASH = r"""
set -u
type=mine value=mine completion=mine response=mine
source /dev/stdin
COMP_WORDS=(overlay services d) COMP_CWORD=2 COMPREPLY=()
_overlay_completion overlay services d
printf '%s ' "${COMPREPLY[@]}" "$type" "$value" "$completion" "$response"
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_completes_nested_commands_and_keeps_its_variables(tmp_path):
    code = "from overlay.cli import main; main(prog_name='overlay')"
    (tmp_path / "overlay").write_text(f'#!/bin/sh\nexec {sys.executable} -c "{code}"\n')
    (tmp_path / "overlay").chmod(0o755)
    script = CliRunner().invoke(main, ["completion", "bash"]).stdout

    done = subprocess.run(
        ["bash", "-c", BASH],
        input=script,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert done.stdout.split() == ["drain", "disable", *["mine"] * 4], done.stderr


@pytest.mark.parametrize(("shell", "names"), [("bash", "type value completion"), ("zsh", "type key descr")])
def test_script_declares_what_its_function_sets(shell, names):
    script = CliRunner().invoke(main, ["completion", shell]).stdout

    declared = [line.split()[1:] for line in script.splitlines() if line.strip().startswith("local ")]
    assert set(names.split()) <= {name for each in declared for name in each}


def complete(words):
    """Return the completions of *words*, the last of which is incomplete or empty."""
    asked = ShellComplete(main, {}, "overlay", VARIABLE)
    return [each.value for each in asked.get_completions(words[1:-1], words[-1])]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("overlay serv", {"service", "services"}),
        ("overlay services d", {"drain", "disable"}),
        ("overlay service s", {"status"}),
        ("overlay network re", {"reserve", "release"}),
        ("overlay services --js", {"--json"}),
        ("overlay services drain --int", {"--interface"}),
        ("overlay capture --dropped staging", {"staging_full"}),
        ("overlay log-level de", {"debug"}),
        ("overlay man serv", {"service", "services"}),
        ("overlay man services d", {"drain", "disable"}),
        ("overlay man ping x", set()),
        ("overlay man nosuch ", set()),
        ("overlay man services nosuch ", set()),
    ],
)
def test_what_is_begun_is_completed(words, found):
    assert set(complete(words.split(" "))) == found


def test_services_are_completed_by_their_commands():
    assert {"list", "drain", "weight", "import"} <= set(complete(["overlay", "services", ""]))


def test_export_completes_the_peers_of_a_file_and_nothing_where_it_cannot_be_read(tmp_path):
    good, wrong = tmp_path / "peers.toml", tmp_path / "wrong.toml"
    key = "CgXSm3ePSUZYhd1QfEqQZ5CR5xkX3omnyO672MUvlBE="
    good.write_text(
        f'[network]\nprefix = "10.244.0.0/16"\n[peers.phone]\npublic_key = "{key}"\naddress = "10.244.1.1"\n'
    )
    wrong.write_text("[")

    assert complete(["overlay", "export", "--peers", str(good), ""]) == ["phone"]
    assert complete(["overlay", "export", "--peers", str(good), "x"]) == []
    for place in (wrong, tmp_path / "none", "etcd://127.0.0.1:1/net"):
        assert complete(["overlay", "export", "--peers", str(place), ""]) == []


def test_other_shell_is_refused():
    assert CliRunner().invoke(main, ["completion", "tcsh"]).exit_code == 2
