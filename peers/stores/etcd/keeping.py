"""Keeping what is known of a network on disk while an agent runs, for a start while etcd is away."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING

import trio

from peers.stores.etcd import remarks, saved

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from peers.addresses import Prefix
    from peers.stores.etcd.saved import Saved
    from peers.stores.remark import StoreRemark

# Ours
SAVE_INTERVAL = 2.0  # seconds between two writes of what is known
PATIENCE = 5.0  # seconds for a disk to forget

log = logging.getLogger("overlay")


class Keeping:
    """The *files* of one network, each of which has the same.

    *state* returns a number and the subnets, others after each change, or None where nothing is worth being kept;
    *known* all that is.
    """

    interval = SAVE_INTERVAL
    """Seconds between two writes."""

    def __init__(
        self,
        files: tuple[Path, ...],
        state: Callable[[], tuple[int, tuple[Prefix, ...]] | None],
        known: Callable[[], Saved],
        *,
        has_kept: bool,
    ) -> None:
        self._files, self._state, self._known = files, state, known
        self._former: set[Path] = set()  # that are not kept any more
        self._written: tuple[tuple[int, tuple[Prefix, ...]], tuple[Path, ...]] | None = None
        self._is_confirmed = self._is_over = False
        self.has_kept = has_kept
        """Whether something is on disk, of this run or of the one before."""
        self.trouble: StoreRemark | None = None
        """Why what is known could not be written; None where it could."""
        self._disk = trio.Lock()

    def confirm(self) -> None:
        """Take note that etcd has said that what is kept is still true."""
        self._is_confirmed = True

    def keep_in(self, files: tuple[Path, ...]) -> None:
        """Keep it in *files* from now on; those that are not among them any more go."""
        self._former |= {*self._files}
        self._files = files

    async def forget(self) -> None:
        """Remove the files, and keep nothing any more."""
        self._is_over = True
        with trio.move_on_after(PATIENCE):  # a disk may hang
            async with self._disk:
                _remove({*self._files, *self._former})

    async def run(self) -> None:
        """Keep what is known, until cancelled, and what is known then: a start may fail right after joining."""
        try:
            while True:
                await trio.sleep(self.interval)
                await self._keep()
        finally:
            with trio.move_on_after(PATIENCE, shield=True):  # a disk may hang
                await self._keep()

    async def _keep(self) -> None:
        state, files = self._state(), self._files
        if state is None or self._is_over:
            return
        try:
            if (state, files) != self._written:
                await self._write(files, self._known())
                self._written, self.trouble, self.has_kept = (state, files), None, True
            elif self._is_confirmed:
                for file in files:
                    await trio.to_thread.run_sync(saved.confirm, file, abandon_on_cancel=True)
            self._is_confirmed = False
        except OSError as error:
            trouble = remarks.describe_unsaved(files[0], error)
            if trouble != self.trouble:
                log.warning("%s", trouble)
            self.trouble = trouble

    async def _write(self, files: tuple[Path, ...], kept: Saved) -> None:
        """Write *kept* to *files* and remove the other files that had it.  Raises OSError."""
        async with self._disk:
            for file in files:
                if not self._is_over:
                    await trio.to_thread.run_sync(saved.write, file, kept, abandon_on_cancel=True)
            _remove(self._former - {*files})
            self._former.clear()


def _remove(files: Iterable[Path]) -> None:
    for file in files:
        with contextlib.suppress(OSError):
            file.unlink(missing_ok=True)
