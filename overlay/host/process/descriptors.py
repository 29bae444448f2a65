"""How many files and sockets this process may have open."""

from __future__ import annotations

import contextlib
import resource


def raise_limit(wanted: int) -> int:
    """Raise the limit to *wanted*, or as near as this process may, and return it; a higher limit stays.

    It is no higher than necessary, because the programs that this one runs inherit it: some close each descriptor up to
    it, and those that call select() cannot use descriptors from 1024 on.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted if soft == resource.RLIM_INFINITY else soft
    reached = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    with contextlib.suppress(OSError, ValueError):  # beyond fs.nr_open
        resource.setrlimit(resource.RLIMIT_NOFILE, (reached, hard))
        return reached
    return soft
