from __future__ import annotations

import signal
import subprocess
import sys

from tests.test_imports import ROOT

BACKGROUND_JOB = """
import signal, subprocess, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
import tests.conftest
child = subprocess.Popen([sys.executable, "-c", "import signal; print(flush=True); signal.pause()"], stdout=subprocess.PIPE)
child.stdout.readline()
child.send_signal(signal.SIGINT)
sys.exit(child.wait(60) != -signal.SIGINT and child.returncode != 130)
"""


def test_what_a_test_starts_can_be_interrupted_when_the_tests_are_a_job_in_the_background():
    done = subprocess.run(
        [sys.executable, "-c", BACKGROUND_JOB], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
    assert done.returncode == 0, done.stderr
