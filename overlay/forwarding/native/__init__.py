"""The packet path, compiled: the twin of what the modules around it specify, where it could be built.

``core`` is the extension, None without it.  OVERLAY_NATIVE=0 in the environment leaves it out; everything works as with
it, but slower.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

missing = ""
"""Why there is none, for whoever asks; empty where there is one."""

core: ModuleType | None = None


def describe() -> str:
    """Return which packet path this installation has, and by which library or why."""
    return f"interpreted: {missing}" if core is None else f"compiled, with {core.LIBRARY}"


if os.environ.get("OVERLAY_NATIVE") == "0":
    missing = "OVERLAY_NATIVE=0"
else:
    try:
        core = importlib.import_module("overlay.forwarding.native._core")
    except ModuleNotFoundError:
        missing = "not built"
    except ImportError as error:  # there is no library for it
        missing = str(error)
