"""How a host holds its subnet: the calls to etcd that its tenancy asks for, one at a time, and what becomes of them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Generic, TypeVar

import trio

from peers.errors import StoreError
from peers.stores.etcd.following import LONGEST_PAUSE
from peers.stores.etcd.messages import Cause, Delete, GatewayError, Put, is_unchanged
from peers.stores.etcd.tenant import Grant, KeepAlive, Write
from peers.stores.remark import StoreRemark

if TYPE_CHECKING:
    from collections.abc import Callable

    from peers.stores.etcd.following import Following
    from peers.stores.etcd.gateway import Gateway
    from peers.stores.etcd.keeping import Keeping
    from peers.stores.etcd.tenant import Call, Tenant

# Ours
LEAST_PAUSE = 0.1  # seconds between two looks for a call that is due

D = TypeVar("D")
M = TypeVar("M")

log = logging.getLogger("overlay")


class Holding(Generic[M, D]):
    """Makes the calls of *tenant* while run() runs.

    *known* returns the members and the document; None while no call is to be made.  Whenever these have been put to
    *tenant*, *stands* is called with whether its standing is another.  *tell* is called when a refusal begins or ends.
    """

    def __init__(
        self,
        tenant: Tenant[M, D],
        gateway: Gateway,
        following: Following,
        keeping: Keeping,
        known: Callable[[], tuple[M, D] | None],
        stands: Callable[[bool], None],
        tell: Callable[[], None],
    ) -> None:
        self._tenant, self._gateway, self._following, self._keeping = tenant, gateway, following, keeping
        self._known, self._stands, self._tell = known, stands, tell
        self.refusal: StoreRemark | None = None
        """Why etcd, which answers, does not let this host write; None if it does."""
        self._read_at = 0  # the revision at which the members were read
        self._awaited = 0  # that of our own last write, which the watch will tell
        self._due = trio.Event()

    def read(self, revision: int) -> None:
        """Note that the members were read as they were at *revision*."""
        self._read_at = revision
        self._due.set()

    def spoke(self) -> None:
        """Note that etcd has told everything that had happened when it began to speak."""
        self._awaited = 0

    async def run(self) -> None:
        """Make calls until cancelled."""
        while True:
            self._due = trio.Event()
            call = self._next_call()
            if call is not None:
                await self._make(call)
                continue
            wait = max(LEAST_PAUSE, self._tenant.next_deadline() - trio.current_time())
            with trio.move_on_after(wait if self._following.silent_since is None else LONGEST_PAUSE):
                await self._due.wait()

    def _next_call(self) -> Call | None:
        """Return the call to make now."""
        known = self._known()
        if known is None or self._following.silent_since is not None:
            return None
        now = trio.current_time()
        if self._read_at < self._awaited:
            return self._tenant.renewal(now)
        before = self._tenant.standing
        call = self._tenant.next_call(*known, now)
        self._stands(self._tenant.standing is not before)
        return call

    async def _make(self, call: Call) -> None:
        tenant, now = self._tenant, trio.current_time
        try:
            match call:
                case Grant():
                    lease = await self._gateway.grant(call.seconds)
                    tenant.granted(lease.number, lease.seconds, now())
                case KeepAlive():
                    kept = await self._gateway.keep_alive(call.lease)
                    tenant.kept(kept.seconds, now())
                    self._keeping.confirm()
                    if not kept.seconds:
                        log.warning("the lease has ended, the subnet is claimed again lease=%d", call.lease)
                case Write():
                    await self._write(call)
        except GatewayError as error:
            if error.cause is Cause.GONE:
                tenant.kept(0, now())
                return
            if error.cause is Cause.FORBIDDEN:
                tenant.failed(now(), LONGEST_PAUSE)
                self._take_refusal(str(error))
                return
            tenant.failed(now())
            self._following.failed(error)
        except StoreError as error:
            tenant.failed(now())
            self._following.fall_silent(error)

    async def _write(self, call: Write) -> None:
        removed = call.removed
        outcome = await self._gateway.transact(
            [is_unchanged(call.key, call.modified), *(is_unchanged(*each) for each in removed)],
            [Put(call.key, call.value.build(), call.lease), *(Delete(key) for key, _ in removed)],
        )
        self._tenant.wrote(call.key, trio.current_time(), succeeded=outcome.succeeded)
        self._take_refusal(None)
        if outcome.succeeded:
            self._awaited = outcome.header.revision

    def _take_refusal(self, reason: str | None) -> None:
        """Take note that etcd does not let this host write, or lets it again: what it tells goes on to hold."""
        refusal = None if reason is None else StoreRemark.of(reason)
        if refusal != self.refusal:
            self.refusal = refusal
            if reason is not None:
                log.warning("%s", reason)
            self._tell()
