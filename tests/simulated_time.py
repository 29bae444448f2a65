"""Simulated time that waits for threads."""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import MockClock

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def waiting_for_threads(clock: trio.abc.Clock | None) -> Iterator[None]:
    """Have *clock*, if it is simulated, stand still while a thread works, as on a disk, however long that takes.

    It would jump while nothing else runs, and what has a time limit would end.
    """
    if not isinstance(clock, MockClock):
        yield
        return
    run_sync, idle, working = trio.to_thread.run_sync, clock.autojump_threshold, 0

    async def counted(*given: Any, **how: Any) -> Any:
        nonlocal working
        working += 1
        clock.autojump_threshold = math.inf
        try:
            return await run_sync(*given, **how)
        finally:
            working -= 1
            if not working:
                clock.autojump_threshold = idle

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(trio.to_thread, "run_sync", counted)
        yield
