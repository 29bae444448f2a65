"""Keeping what is known of a network on disk while an agent runs, for a start while etcd is away."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING

import trio

from peers.stores.etcd import remarks, saved

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from peers.addresses import Prefix
    from peers.stores.etcd.saved import Saved

# Ours
SAVE_INTERVAL = 2.0  # seconds between two writes of what is known
PATIENCE = 5.0  # seconds for a disk to forget

log = logging.getLogger("overlay")


class Keeping:
    """The *file* of one network.

    *state* returns a number and the subnets, others after each change, or None where nothing is worth being kept;
    *known* all that is.
    """

    interval = SAVE_INTERVAL
    """Seconds between two writes."""

    def __init__(
        self,
        file: Path,
        state: Callable[[], tuple[int, tuple[Prefix, ...]] | None],
        known: Callable[[], Saved],
    ) -> None:
        self._file, self._state, self._known = file, state, known
        self._is_confirmed = self._is_over = False
        self.trouble: str | None = None
        """Why what is known could not be written; None where it could."""
        self._disk = trio.Lock()

    def confirm(self) -> None:
        """Take note that etcd has said that what is kept is still true."""
        self._is_confirmed = True

    async def forget(self) -> None:
        """Remove the file, and keep nothing any more."""
        self._is_over = True
        with trio.move_on_after(PATIENCE):  # a disk may hang
            async with self._disk:
                with contextlib.suppress(OSError):
                    self._file.unlink(missing_ok=True)

    async def run(self) -> None:
        """Keep what is known, until cancelled."""
        written: tuple[int, tuple[Prefix, ...]] | None = None
        while True:
            await trio.sleep(self.interval)
            state = self._state()
            if state is None or self._is_over:
                continue
            try:
                if state != written:
                    kept = self._known()
                    async with self._disk:
                        if not self._is_over:
                            await trio.to_thread.run_sync(
                                saved.write, self._file, kept, abandon_on_cancel=True
                            )
                    written, self.trouble = state, None
                elif self._is_confirmed:
                    await trio.to_thread.run_sync(saved.confirm, self._file, abandon_on_cancel=True)
                self._is_confirmed = False
            except OSError as error:
                trouble = remarks.describe_unsaved(self._file, error)
                if trouble != self.trouble:
                    log.warning("%s", trouble)
                self.trouble = trouble
