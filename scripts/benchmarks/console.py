"""Output of the benchmarks, and the names of the programs they measured."""

from __future__ import annotations

import subprocess
import sys
from typing import Any, NoReturn


def program_version(command: list[str]) -> str:
    try:
        done: Any = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except OSError:
        return "absent"
    return str((done.stdout or done.stderr).partition("\n")[0])


def say(text: str = "", end: str = "\n") -> None:
    print(text, end=end, flush=True)


def progress(text: str) -> None:
    """Print progress for the user, to stderr."""
    print(text, file=sys.stderr, flush=True)


def fail(problem: str) -> NoReturn:
    """End the program with the exit code for wrong usage."""
    print(f"scripts/bench: {problem}", file=sys.stderr)
    raise SystemExit(2)
