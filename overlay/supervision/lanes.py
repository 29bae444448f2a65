"""How many lanes a node has (``docs/how-it-works.md``): as configured, otherwise by its number of processors, if it can
have several.
"""

from __future__ import annotations

import os
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import NamedTuple

# Ours
NUMBERS = (1, 2, 4, 8)  # that may be configured
MANY = 4  # the most by default; more is for users who have measured it
NATIVE = Path(__file__).parents[1] / "forwarding" / "native"


class Chosen(NamedTuple):
    """The number of lanes, and a sentence if it differs from the requested one."""

    lanes: int
    note: str | None = None


def processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0))


def is_compiled() -> bool:
    """Return whether the forwarder is likely to have the compiled packet path, without asking it."""
    if os.environ.get("OVERLAY_NATIVE") == "0":
        return False
    return any((NATIVE / f"_core{suffix}").exists() for suffix in EXTENSION_SUFFIXES)


def why_interpreted() -> tuple[str, str]:
    """Return why the forwarder has no compiled packet path, and the remedy."""
    what = "packets take the interpreted path, so throughput is a fraction of that of the compiled path"
    if os.environ.get("OVERLAY_NATIVE") == "0":
        return f"{what}: the environment has OVERLAY_NATIVE=0", "start the agent without it"
    if not is_compiled():
        return (
            f"{what}: this installation was not compiled",
            "install gcc and the headers of Python, then overlay again",
        )
    return f"{what}: the compiled path cannot be loaded", "run `overlay --version`, which says why"


def choose_here(wanted: int | None, *, is_tap: bool, is_privileged: bool) -> Chosen:
    """Return the number of lanes on this host; see choose()."""
    return choose(wanted, processors(), is_tap=is_tap, is_privileged=is_privileged, is_compiled=is_compiled())


def notes(wanted: int | None, chosen: Chosen, queues: int) -> list[str]:
    """Return sentences on requested lanes that are missing; the device has that many *queues*."""
    if chosen.note is not None:
        return [chosen.note]
    if wanted is not None and queues < chosen.lanes:
        reason = "its persistent device was made without multi_queue"
        return [f"this node has one lane instead of the {wanted} that --lanes asks for: {reason}"]
    return []


def choose(wanted: int | None, cores: int, *, is_tap: bool, is_privileged: bool, is_compiled: bool) -> Chosen:
    """Return the number of lanes; *wanted* is the configured number, or None.

    The default is one on two *cores* or fewer, which programs and the kernel already use at both ends of a packet's
    path; on more cores it is half of them, rounded up, because the other half does the rest of the work.
    """
    reason = None
    if is_tap:
        reason = "a tap device has one"
    elif not is_privileged:
        reason = "an agent without root has one"
    elif not is_compiled:
        reason = "only the compiled packet path has several, which this installation does not have or use"
    if reason is not None:
        note = f"this node has one lane instead of the {wanted} that --lanes asks for: {reason}"
        return Chosen(1, note if (wanted or 1) > 1 else None)
    if wanted is not None:
        return Chosen(wanted)
    return Chosen(max(number for number in NUMBERS if number <= max(1, min(MANY, (cores + 1) // 2))))
