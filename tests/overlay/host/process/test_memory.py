from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

# Freed memory is interleaved with memory in use, so that the C library does not return it by itself.
PROGRAM = """
from pathlib import Path
from overlay.host.process.memory import give_back

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

freed, kept = [], []
for number in range(50_000):
    (freed if number % 10 else kept).append(bytes(1000))
del freed
before = resident()
give_back()
print(before - resident())
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="this C library is not glibc")
def test_memory_between_what_is_kept_goes_back():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)

    assert int(done.stdout) > 10_000_000
