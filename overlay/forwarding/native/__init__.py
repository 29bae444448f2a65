"""The compiled packet path: the twin of the modules around it, which specify it, if it could be built.

``core`` is the extension, or None.  OVERLAY_NATIVE=0 in the environment leaves it out; everything works the same
without it, but slower.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

SOURCE_TREE = Path(__file__).parents[3]
NOT_BUILT = (
    "not built, so packets cost two to three times the processor time:"
    " install gcc and the headers of Python, then overlay again"
)

missing: str
"""Why there is no library, as text for users; empty if there is one."""

core: ModuleType | None


def describe() -> str:
    """Return which packet path this installation has, and its library, or why it is interpreted."""
    return f"interpreted: {missing}" if core is None else f"compiled, with {core.LIBRARY}"


def is_outdated(library: Path, root: Path = SOURCE_TREE) -> bool:
    """Return whether a source file next to *library* is newer: the library would not fit the current Python code.

    This matters only if the project runs from its sources, in *root*.  An installed library always fits.
    """
    if not (root / "pyproject.toml").is_file():
        return False
    built = library.stat().st_mtime_ns
    return any(source.stat().st_mtime_ns > built for source in library.parent.glob("*.[ch]"))


def _load() -> tuple[ModuleType | None, str]:
    """Return the extension, or why there is none."""
    if os.environ.get("OVERLAY_NATIVE") == "0":
        return None, "OVERLAY_NATIVE=0"
    found = importlib.util.find_spec("overlay.forwarding.native._core")
    if found is None or found.origin is None:
        return None, NOT_BUILT
    if is_outdated(Path(found.origin)):
        return None, "its sources are newer than the built library: run scripts/install"
    try:
        return importlib.import_module(found.name), ""
    except ImportError as error:  # a library that it needs is missing
        return None, str(error)


core, missing = _load()
