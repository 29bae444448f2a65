"""Exempts lasting objects from collections of cyclic garbage, which stop the whole process."""

from __future__ import annotations

import contextlib
import gc
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# Ours
MANY = 100_000  # objects; searching so many takes ten milliseconds or more


@contextlib.contextmanager
def growing() -> Iterator[None]:
    """Collect no cyclic garbage inside the block, which makes many lasting objects: searching them repeatedly takes
    longer, and stops all threads.

    If MANY objects were made, all that are alive at the end are exempt from later collections, so that the first of
    these does not search them all at once.  Nothing leaks but cyclic garbage of that moment; tables are not cyclic, and
    are freed when nothing refers to them.  If several blocks overlap, collection resumes when the first ends.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            if gc.get_count()[0] >= MANY:
                gc.freeze()
            gc.enable()
