"""What hooks can be run for, and who is told of it (overlay/hooks.py runs them)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

# Ours
HOOKS = Path("/etc/overlay/hooks.d")  # where they are, unless an option says otherwise
EVENTS = ("up", "down", "peer-up", "peer-down", "reload", "service")


class Tell(Protocol):
    """Hears of an event, one of EVENTS, with what is to be known of it."""

    def __call__(self, event: str, **fields: Any) -> None: ...


def tell_nobody(event: str, **fields: Any) -> None:
    """Do nothing."""
