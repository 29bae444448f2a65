"""The script that runs the tests, and .ci/run around it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time

import pytest

from tests.test_imports import ROOT


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_is_printed_and_nothing_is_run(option):
    done = subprocess.run(
        [ROOT / "scripts/test", option], capture_output=True, text=True, check=False, timeout=60
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert "scripts/test [--quick | --thorough] [ARGUMENTS OF PYTEST ...]" in done.stdout
    assert done.stdout.endswith("are skipped and listed.\n")


@pytest.fixture
def tree(tmp_path):
    """Makes a tree with the scripts, in which what they start is told what to do."""

    def make(tests="echo 1 passed", checks="echo checked", package="echo packed"):
        for script in ("scripts/test", ".ci/run"):
            (tmp_path / script).parent.mkdir()
            shutil.copy(ROOT / script, tmp_path / script)
        (tmp_path / ".venv/bin").mkdir(parents=True)
        told = {"scripts/install": ":", "scripts/check": checks, "scripts/package": package}
        for name, text in {**told, ".venv/bin/python": tests}.items():
            (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
            (tmp_path / name).chmod(0o755)
        return tmp_path

    return make


def run(script):
    return subprocess.run([script], capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("script", ["scripts/test", ".ci/run"])
def test_a_run_that_finds_nothing_ends_with_the_summary_of_the_tests(tree, script):
    done = run(tree() / script)

    assert (done.returncode, done.stdout, done.stderr) == (0, "1 passed\n", "")


@pytest.mark.parametrize("script", ["scripts/test", ".ci/run"])
@pytest.mark.parametrize(
    ("told", "shown"),
    [
        ({"checks": "echo a finding >&2; exit 3"}, "a finding\n"),
        ({"tests": "echo 1 failed; exit 1"}, "1 failed\n"),
    ],
    ids=["checks", "tests"],
)
def test_what_fails_is_shown_and_fails_the_run_though_the_rest_is_tried(tree, script, told, shown):
    done = run(tree(**told) / script)

    assert done.returncode == 1
    assert shown in done.stdout
    assert "tests" in told or "1 passed\n" in done.stdout


def test_a_package_that_fails_is_shown_and_fails_the_run(tree):
    done = run(tree(package="echo no wheel >&2; exit 2") / ".ci/run")

    assert (done.returncode, done.stdout) == (1, "1 passed\nno wheel\n")


@pytest.mark.parametrize("handled", [False, True], ids=["killed", "exits by itself"])
def test_a_run_that_is_interrupted_ends_the_checks(tree, handled):
    # No program runs when the file is seen: a shell goes on after one that the interrupt did not end.
    begin = "while [[ ! -s checking ]]; do sleep 0.01; done; : > testing"
    folder = tree(
        checks="echo $$ > checking\nsleep 60",
        tests=f"trap 'exit 2' INT; {begin}; while :; do sleep 0.01; done"
        if handled
        else f"{begin}; exec sleep 60",
    )
    process = subprocess.Popen(
        [folder / "scripts/test"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    checking = folder / "checking"
    try:
        while not (folder / "testing").exists():
            time.sleep(0.01)

        os.killpg(process.pid, signal.SIGINT)

        assert process.wait(60) != 0
        while True:
            try:
                os.killpg(int(checking.read_text()), 0)
            except ProcessLookupError:
                break
            time.sleep(0.01)
    finally:
        for group in (process.pid, int(checking.read_text())):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
        process.wait()
