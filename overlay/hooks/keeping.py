"""Programs that are ended together with everything that they have started, by a keeper process for each.

The keeper is overlay/host/process/keeper.py.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import trio

from overlay.host.process import keeper
from overlay.services.checks.script import feed

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# Ours
PATIENCE = keeper.PATIENCE + keeper.LAST_PATIENCE + 1.0  # seconds for the keeper to end everything


async def run_kept(
    program: Path,
    environment: Mapping[str, str],
    standard_input: bytes,
    identity: tuple[int | None, int | None],
) -> int:
    """Run *program*; once it and everything that it has started are gone, return its exit status, negative for a
    signal.

    It runs as the user and group of *identity*, None for those of the agent.  Its output is discarded.  When cancelled,
    it ends the program and everything that the program started.  Raises OSError if it cannot be started.
    """
    who = ("-" if each is None else str(each) for each in identity)
    process = await trio.lowlevel.open_process(
        [sys.executable, "-I", "-S", keeper.__file__, *who, str(program)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=dict(environment),
        cwd="/",
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(feed, process.stdin, standard_input)
            told = b"".join([piece async for piece in process.stdout])
            nursery.cancel_scope.cancel()
        ended = await process.wait()
    finally:
        await _end(process)
    kind, _, number = told.decode("ascii", "replace").partition(" ")
    if kind == "error":
        raise OSError(int(number), os.strerror(int(number)))
    return int(number) if kind == "exit" else ended


async def _end(process: trio.Process) -> None:
    """Make the keeper process end the program, and then itself."""
    with trio.CancelScope(shield=True):
        process.terminate()
        with trio.move_on_after(PATIENCE):
            await process.wait()
        process.kill()
        await process.wait()
        for each in (process.stdin, process.stdout):
            if each is not None:
                await each.aclose()
