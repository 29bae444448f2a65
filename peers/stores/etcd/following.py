"""Following the keys of a network for as long as an agent runs: it comes back after each end of a watch.

Whatever is known is in force until something else is known: silence changes nothing.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, NoReturn

import trio

from peers.errors import StoreError
from peers.stores.etcd import remarks
from peers.stores.etcd.messages import Get, prefix_end
from peers.stores.etcd.mirror import HistoryError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from peers.stores.etcd.gateway import Gateway
    from peers.stores.etcd.mirror import Mirror
    from peers.stores.remark import StoreRemark

# Ours
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0  # seconds before etcd is tried again, with chance on top
HISTORY_PAUSE = 10.0  # seconds before an etcd with another past is looked at again
WATCH_PATIENCE = 10.0  # seconds for a watch to begin

log = logging.getLogger("overlay")


class Following:
    """All keys that begin with *prefix*, as *mirror* has them, followed by *gateway*.

    *compared* names keys by which another past shows.  *spoke* is called when etcd has told all that happened,
    *changed* when keys did, and *fell_silent* when it says nothing any more.
    """

    def __init__(
        self,
        gateway: Gateway,
        prefix: bytes,
        mirror: Mirror,
        compared: Callable[[], Iterable[bytes]],
        spoke: Callable[[], None],
        changed: Callable[[], None],
        fell_silent: Callable[[], None],
    ) -> None:
        self.mirror = mirror
        self.has_contact = False
        """Whether etcd has spoken at any time since the start."""
        self.silent_since: float | None = trio.current_time()
        self.trouble: StoreError | None = None
        """Why it is silent."""
        self.history: str | None = None
        """How it shows that it is not the etcd that was followed; None where it does not."""
        self._gateway, self._prefix = gateway, prefix
        self._compared, self._spoke, self._changed, self._fell_silent = compared, spoke, changed, fell_silent
        self._watching: trio.CancelScope | None = None
        self._retry = trio.Event()

    @property
    def silent(self) -> float | None:
        """For how many seconds etcd has said nothing; None if it speaks."""
        return None if self.silent_since is None else trio.current_time() - self.silent_since

    async def run(self) -> None:
        """Follow until cancelled."""
        pause = FIRST_PAUSE
        while True:
            began = trio.current_time()
            self._retry = trio.Event()
            try:
                await self._follow_once()
            except HistoryError as error:
                if self.history != str(error):
                    log.error("etcd is not followed, the table stays in force: %s", error)  # noqa: TRY400
                self.history = str(error)
                self.fall_silent(StoreError(str(error)))
                pause = HISTORY_PAUSE
            except StoreError as error:
                self.fall_silent(error)
                pause = (
                    FIRST_PAUSE
                    if trio.current_time() - began > LONGEST_PAUSE
                    else min(2 * pause, LONGEST_PAUSE)
                )
            # By chance, so that those who lost the same etcd do not come back to it at once.
            with trio.move_on_after(pause * (0.5 + os.urandom(1)[0] / 255)):
                await self._retry.wait()

    def accept(self) -> str | None:
        """Follow etcd whatever its past; return how that differs."""
        was, self.history = self.history, None
        if was is not None:
            self.mirror.accept()
            self._retry.set()
        return was

    def failed(self, error: StoreError) -> None:
        """Take note of a call that failed: who does not answer it may say nothing on the watch either."""
        self.trouble = error
        if self._watching is not None:
            self._watching.cancel()
        self.fall_silent(error)

    def fall_silent(self, error: StoreError) -> None:
        """Take note that etcd says nothing, because of *error*."""
        if self.silent_since is None:
            self.silent_since = trio.current_time()
        if str(error) != str(self.trouble):
            log.warning("%s", error)
        self.trouble = error
        self._fell_silent()

    def notes(self, interface: str | None) -> list[StoreRemark]:
        """Return what an administrator should know of the agent of *interface*."""
        trouble = self.trouble if self.silent_since is not None else None
        return remarks.describe_silence(trouble, self.history, interface, is_first=not self.has_contact)

    async def _follow_once(self) -> NoReturn:
        """Follow the keys as long as that goes.  Raises StoreError or HistoryError at its end."""
        prefix, end = self._prefix, prefix_end(self._prefix)
        if self.has_contact and self.mirror.cluster is not None:
            await self._compare_history()
        else:
            self.mirror.take_listing(await self._gateway.range(prefix, end), trio.current_time())
        while True:
            with trio.CancelScope() as self._watching:
                async with self._gateway.watch(prefix, end, self.mirror.revision + 1) as watch:
                    with trio.move_on_after(WATCH_PATIENCE) as patience:
                        notice = await watch.next()
                    if patience.cancelled_caught:
                        raise StoreError("etcd does not begin to watch; see whether its cluster has a leader")
                    if not notice.canceled:
                        self._speaks()
                    while not notice.canceled and not notice.compacted:
                        self.mirror.take_notice(notice, trio.current_time())
                        if notice.events:
                            self._changed()
                        notice = await watch.next()
                if notice.canceled and not notice.compacted:
                    raise StoreError(
                        f"etcd ended the watch ({notice.reason or 'without a reason'}); it is begun again"
                    )
            if self._watching.cancelled_caught:
                raise self.trouble or StoreError("etcd is silent")
            # etcd has forgotten what happened.  No node is taken for gone before the listing is complete.
            self.mirror.take_listing(await self._gateway.range(prefix, end), trio.current_time())
            self._changed()

    async def _compare_history(self) -> None:
        """Raise HistoryError where etcd's past is not the one that is known."""
        outcome = await self._gateway.transact([], [Get(key) for key in self._compared()])
        self.mirror.check(outcome.header, [kv for found in outcome.found for kv in found])

    def _speaks(self) -> None:
        """Note that etcd answers, and has reported everything that happened."""
        if self.silent_since is not None and self.trouble is not None:
            log.info("etcd answers revision=%d", self.mirror.revision)
        self.has_contact, self.silent_since, self.trouble, self.history = True, None, None, None
        self._spoke()
