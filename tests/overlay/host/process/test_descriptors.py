"""The limit of open files, in a separate process: a test may not lower that of all others."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
from overlay.host.process import descriptors
soft, hard, wanted = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
print(descriptors.raise_limit(wanted), *resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.parametrize(
    ("soft", "hard", "wanted", "reached"),
    [(100, 1000, 500, 500), (100, 1000, 5000, 1000), (1000, 1000, 500, 1000), (1000, 1000, 5000, 1000)],
)
def test_limit_is_raised_to_what_is_wanted_as_far_as_this_process_may(soft, hard, wanted, reached):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(soft), str(hard), str(wanted)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [str(reached), str(reached), "1000"]
