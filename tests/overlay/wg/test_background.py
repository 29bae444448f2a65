"""A process goes into the background once it is ready, and not before."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time

import pytest

PATIENCE = 60.0
READY = "from overlay.host.process import notify; notify.ready()"


def start(body):
    """Run go_on_in_background() with a function of *body*, and return the finished process
    and what it left in `said`.
    """
    program = (
        "import os, sys, time\n"
        "from overlay.wg.background import go_on_in_background\n"
        f"def run():\n{textwrap.indent(body, '    ')}\n"
        "sys.exit(go_on_in_background(run))\n"
    )
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE, check=False
    )


def test_caller_returns_when_it_is_ready_and_holds_nothing_of_it(tmp_path):
    path = tmp_path / "said"
    begun = time.monotonic()

    done = start(
        f"{READY}\n"
        "sys.stderr.write('not heard')\n"
        f"with open({str(path)!r} + '.new', 'w') as file:\n"
        "    file.write(f'{os.getsid(0) == os.getpid()} {os.getcwd()} {os.readlink(\"/proc/self/fd/1\")}')\n"
        f"os.rename({str(path)!r} + '.new', {str(path)!r})\n"
        "time.sleep(1)\n"
        "return 0"
    )

    assert done.returncode == 0
    while not path.exists() and time.monotonic() < begun + PATIENCE:
        time.sleep(0.01)
    assert path.read_text() == "True / /dev/null"


def test_what_keeps_it_from_starting_is_told_with_its_exit_code():
    done = start("sys.stderr.write('it does not exist\\n')\nreturn 2")

    assert (done.returncode, done.stdout, done.stderr) == (2, "", "it does not exist\n")


def test_end_without_being_ready_is_a_failure():
    assert start("return 0").returncode == 1
    assert start("os.kill(os.getpid(), 9)").returncode == 1


def test_bug_is_told():
    done = start("raise RuntimeError('a bug')")

    assert done.returncode == 1
    assert "RuntimeError: a bug" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be told from another process")
def test_others_cannot_tell_that_it_is_ready():
    done = start(
        "if os.fork() == 0:\n"
        f"    {READY}\n"
        "    os._exit(0)\n"
        "os.wait()\n"
        "sys.stderr.write('not ready')\n"
        "return 3"
    )

    assert (done.returncode, done.stderr) == (3, "not ready")
