"""How many files and sockets this process may have open."""

from __future__ import annotations

import contextlib
import resource

# Ours
ENOUGH = 1_048_576  # the kernel's own limit (fs.nr_open), where none is set


def raise_limit() -> int:
    """Have the limit as high as this process may set it, and return it.

    The lower one that processes begin with is for those that call select(), which knows no descriptor from 1024 on.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = ENOUGH if hard == resource.RLIM_INFINITY else hard
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return soft
