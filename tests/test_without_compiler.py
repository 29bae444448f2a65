"""An installation without a compiler works, and says what it lacks."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from overlay.forwarding.native import NOT_BUILT
from tests.test_imports import ROOT

LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "*.so", "*.egg-info", "build", "tests", "docs")


def run(*command, **environment):
    return subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=300,
    )


@pytest.mark.slow
def test_pip_installs_the_project_without_a_compiler_and_it_says_that_packets_go_by_python(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    shutil.copytree(ROOT, source, ignore=LEFT_OUT)
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--disable-pip-version-check"]

    done = run(*pip, "--target", str(target), str(source), CC="/nonexistent/cc")
    if done.returncode and "No matching distribution found for setuptools" in done.stderr:
        pytest.skip("no package index within reach, which has what builds the project")
    told = run(sys.executable, "-P", "-m", "overlay", "--version", PYTHONPATH=str(target), OVERLAY_NATIVE="1")

    assert done.returncode == 0, done.stdout + done.stderr
    assert not list(target.rglob("_core*.so"))
    assert told.returncode == 0, told.stderr
    assert f"interpreted: {NOT_BUILT}" in told.stdout


def test_the_script_that_installs_says_in_a_line_what_a_compiler_would_bring(tmp_path):
    (tmp_path / "readlink").symlink_to(shutil.which("readlink"))  # the only program available
    lines = (ROOT / "scripts/install").read_text().splitlines()
    begin, end = lines.index("offer_compiler() {"), lines.index("}", lines.index("offer_compiler() {"))
    code = "\n".join(
        [
            f"venv={Path(sys.prefix)}",
            "say() { printf '%s\\n' \"$*\"; }",
            "is_debian_root() { return 1; }",
            *(line for line in lines if line.startswith("find_headers()")),
            *lines[begin : end + 1],
            f"PATH={tmp_path}",
            "offer_compiler",
        ]
    )

    done = run(shutil.which("bash"), "-euc", code)

    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert line.startswith("without gcc and the headers of ")
    assert line.endswith(
        " the packet path is not compiled: packets cost two to three times the processor time"
    )
