"""Returns memory that the process no longer needs to the kernel, and leaves long-lived memory alone."""

from __future__ import annotations

import contextlib
import ctypes
import gc
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_libc = ctypes.CDLL(None)


def give_back() -> None:
    """Let the C library return the pages that became free; another than glibc keeps them.  Other threads go on.

    A table of 10,000 peers that was replaced leaves 15 MB of them between others.
    """
    with contextlib.suppress(AttributeError):
        _libc.malloc_trim(0)


@contextlib.contextmanager
def growing() -> Iterator[None]:
    """Collect no cyclic garbage meanwhile: much comes to be that stays, and to look it through again
    and again takes longer.

    Where it is used by several at a time, garbage is collected again from the end of the first on.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def settle() -> None:
    """Leave all that is alive out of later collections of garbage: with 10,000 peers each would stop everything for 0.2
    s.

    What is garbage already, and cyclic, is collected before; tables are not, they go when nobody holds them.
    """
    gc.collect(1)
    gc.freeze()
