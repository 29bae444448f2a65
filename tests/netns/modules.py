"""Kernel modules that a test loads, and that are unloaded with its lab: a loaded one changes what every host does.

The kernel's own ipip, say, answers packets that it has no tunnel for with ICMP errors, in every network namespace.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

import pytest

LOADED = Path("/proc/modules")  # name, size, references, "a,b," or "-": its users, ...
PATIENCE = 60.0  # seconds; the devices of a deleted namespace are removed a moment later


def load(name: str) -> bool:
    """Load the kernel module *name* and return whether it was not loaded before; skip the test if
    the machine has none.
    """
    if Path("/sys/module", name).is_dir():
        return False
    modprobe = shutil.which("modprobe")
    if modprobe is None or subprocess.run([modprobe, "-q", name], check=False).returncode != 0:
        pytest.skip(f"this kernel has no module {name}")
    return name in users()


def unload(name: str) -> None:
    """Unload *name*, its users, and the modules that only it used, as soon as nothing refers to it; or fail."""
    deadline = time.monotonic() + PATIENCE
    while name in (by_name := users()):
        for user in by_name[name]:
            unload(user)
        done = subprocess.run(["modprobe", "-r", name], capture_output=True, text=True, check=False)
        if done.returncode and time.monotonic() > deadline:
            raise AssertionError(f"the module {name} stays loaded: {done.stderr.strip()}")
        time.sleep(0.05)


def users() -> dict[str, list[str]]:
    """Return the loaded modules, and which modules use each."""
    rows = [line.split() for line in LOADED.read_text().splitlines()] if LOADED.exists() else []
    return {name: [user for user in by.split(",") if user not in {"", "-"}] for name, _, _, by, *_ in rows}
