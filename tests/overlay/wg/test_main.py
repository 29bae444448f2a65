"""The command line of overlay-wg."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


def run(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "overlay.wg", *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={**os.environ, **environment},
    )


def test_help_and_version_are_printed():
    assert run("--help").stdout.startswith("Usage: overlay-wg [-f | --foreground] INTERFACE\n")
    assert run("--version").stdout.startswith("overlay-wg ")


@pytest.mark.parametrize("arguments", [(), ("a", "b"), ("-x", "a"), ("-f",), ("-f", "-f")])
def test_wrong_use_shows_the_usage(arguments):
    done = run(*arguments)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Usage:")


@pytest.mark.parametrize("options", [(), ("-f",)])
def test_name_that_none_can_have_is_refused_in_one_sentence(options):
    done = run(*options, "bad/name")

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("overlay-wg: 'bad/name' cannot name an interface")
    assert len(done.stderr.splitlines()) == 1
