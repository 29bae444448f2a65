"""The events of hooks, and the type of their receiver (overlay/hooks/commands.py runs hooks)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

# Ours
HOOKS = Path("/etc/overlay/hooks.d")  # unless an option names another directory
EVENTS = ("up", "down", "peer-up", "peer-down", "reload", "service")


class Tell(Protocol):
    """Takes an event, one of EVENTS, with its details."""

    def __call__(self, event: str, **fields: Any) -> None: ...


def tell_nobody(event: str, **fields: Any) -> None:
    """Do nothing."""
