"""A host's part in a network, whatever its keys look like: it follows them, holds its subnet, and continues with what
it knows whatever etcd does.

Four tasks: one follows the keys (following.py), one reads who takes part, one makes the calls that the tenancy asks for
(holding.py), one keeps what is known on disk (keeping.py).  What is known stays in force until something else is known:
silence does not change anything.

What the keys mean is defined by a subclass for each layout of keys, in the methods that are abstract here.
"""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import trio

from peers.errors import StoreError
from peers.stores import membership
from peers.stores.etcd import remarks, saved
from peers.stores.etcd.endpoint import find_address
from peers.stores.etcd.following import Following
from peers.stores.etcd.holding import Holding
from peers.stores.etcd.in_force import InForce
from peers.stores.etcd.keeping import Keeping
from peers.stores.etcd.messages import GatewayError
from peers.stores.etcd.mirror import Mirror
from peers.stores.etcd.slices import compute
from peers.stores.etcd.tenant import Standing
from peers.stores.remark import StoreRemark

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from peers.addresses import Prefix
    from peers.stores.etcd.gateway import Gateway
    from peers.stores.etcd.messages import KeyValue
    from peers.stores.etcd.slices import Slices
    from peers.stores.etcd.tenant import Tenant
    from peers.stores.membership import Member, OwnKeys

# Ours
GATHERING = 0.1  # seconds in which changes are gathered before the members are read again
SHARE = 10  # and this many times as long as the last reading took, so that a thousand joins are not read one by one
TAKES_PART = {Standing.HELD, Standing.LISTED}
UNASKED = (
    24 * 3600.0
)  # seconds; a subnet that was held longer ago is not used without asking (as flannel's lease)
LEAVE_PATIENCE = 5.0  # seconds

log = logging.getLogger("overlay")


class Listed(Protocol):
    """Who is in a network."""

    @property
    def left_out(self) -> tuple[StoreRemark, ...]:
        """Why others are not."""


D = TypeVar("D")
M = TypeVar("M", bound=Listed)
S = TypeVar("S")


class Participant(ABC, Generic[D, M, S]):
    """One host in the network *name*, whose keys begin with *prefix*.

    A document *D* and members *M* are read from the keys, and make a snapshot *S*, each of which *take* is handed.
    *files* have been read.
    """

    def __init__(
        self,
        name: str,
        prefix: bytes,
        gateway: Gateway,
        member: Member,
        files: saved.Files,
        tenancy: Tenant[M, D],
        take: Callable[[S], None],
    ) -> None:
        self._name, self._gateway, self._member, self._take = name, gateway, member, take
        self._own_keys, self._own_keys_read = member.keys, member.keys
        self._files = files
        self._why_untold: StoreRemark | None = None  # why others should not learn of the following key
        restored, confirmed = files.found if files.found is not None else (None, 0.0)
        self._mirror = (
            Mirror(restored.cluster, restored.revision, restored.kvs) if restored is not None else Mirror()
        )
        self._tenant = tenancy
        if restored is not None and 0 <= time.time() - confirmed < UNASKED:
            tenancy.remember(restored.subnets)
        self._in_force: InForce[D] = InForce()
        self._members: M | None = None
        self._snapshot: S | None = None
        self._has_left = False
        self._gathered, self._told = trio.Event(), trio.Event()
        self._following = Following(
            gateway, prefix, self._mirror, self.compared, self._spoke, self._changed, self._tell
        )
        self._keeping = Keeping(
            files.of(member.keys), self._state, self._known, has_kept=restored is not None
        )
        self._holding = Holding(
            tenancy, gateway, self._following, self._keeping, self._part_of, self._stands, self._tell
        )

    # What a layout of keys says

    @abstractmethod
    def compared(self) -> list[bytes]:
        """Return the keys by which another past shows."""

    @abstractmethod
    def document_value(self) -> bytes | None:
        """Return what the document is made of; None if there is none."""

    @abstractmethod
    def read_document(self) -> D:
        """Return the document.  Raises StoreError or TableError."""

    @abstractmethod
    def describe_missing(self, *, was_there: bool) -> str:
        """Return a sentence on a document that is not there, or not any more."""

    @abstractmethod
    def reading_members(self, document: D) -> Slices[M]:
        """Return who is in the network, by the keys as they are at the call."""

    @abstractmethod
    def make_snapshot(self, document: D, members: M) -> S:
        """Return all that a table is made of."""

    @abstractmethod
    def prefixes(self, document: D) -> Collection[Prefix]:
        """Return what the overlay carries."""

    @abstractmethod
    def seconds(self, document: D) -> int:
        """Return how long a lease lasts."""

    @abstractmethod
    def take_address(self, address: str) -> None:
        """Take note of where others reach this host."""

    @abstractmethod
    def describe_standing(self) -> StoreRemark | None:
        """Return what to say of a standing that a person should know of."""

    @abstractmethod
    def take_keys(self, keys: OwnKeys, document: D, members: M) -> StoreRemark | None:
        """Be the host of *keys*, and have others told of the following one, if there is;
        return why they are not to be.
        """

    @abstractmethod
    def told_key(self) -> bytes | None:
        """Return the public key that etcd has of this host; None if there is none."""

    @property
    def _document(self) -> D | None:
        """The document in force."""
        return self._in_force.document

    @property
    def serial(self) -> int:
        """The number of the document, where it has one."""
        return 0

    @property
    def gathering(self) -> float:
        """Seconds in which changes are gathered."""
        return GATHERING

    # Taking part

    async def run(self) -> None:
        """Take part until cancelled."""
        self._read_document()
        await self._read()  # what is on disk
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._following.run)
            nursery.start_soon(self._read_members)
            nursery.start_soon(self._holding.run)
            nursery.start_soon(self._keeping.run)

    async def joined(self, told: Callable[[str], None]) -> None:
        """Return when this host is in the table that was last taken."""
        said = ""
        while not self._is_ready():
            changed = self._told
            trouble = self._following.trouble
            if trouble is not None and self._document is None and _is_lasting(trouble):
                raise trouble
            reason = self._reason_to_wait()
            if reason and reason != said:
                said = reason
                told(reason)
            await changed.wait()

    async def leave(self) -> str | None:
        """Give the subnet back, so that others know at once."""
        self._has_left = True
        lease, self._tenant.lease = self._tenant.lease, 0
        await self._keeping.forget()
        if not lease:
            return None
        try:
            with trio.fail_after(LEAVE_PATIENCE):
                await self._gateway.revoke(lease)
        except (trio.TooSlowError, StoreError) as error:
            why = str(error) or "etcd did not answer in time"
            seconds = self.seconds(self._document) if self._document is not None else 0
            return (
                f"the subnet could not be given back ({why}); the others forget it when its lease ends, "
                f"within {seconds} s"
            )
        return None

    def accept(self) -> str | None:
        """Follow etcd whatever its past."""
        return self._following.accept()

    def use_keys(self, keys: OwnKeys) -> None:
        """Be the host of *keys* from the next look at them on, which is due within a second."""
        self._own_keys = keys

    @property
    def key_delay(self) -> StoreRemark | None:
        """Why others are not told of the following key yet; None if they are, or there is none."""
        following = self._own_keys.following
        if following is None or self.told_key() == following:
            return None
        if self._following.silent_since is not None:
            return remarks.UNTOLD_IN_SILENCE
        return self._why_untold or remarks.TOLD_SOON

    @property
    def known_keys(self) -> dict[bytes, KeyValue]:
        """The keys of the network as last reported."""
        return self._mirror.kvs

    def standing(self) -> membership.StoreStanding:
        """Return the state of this host."""
        return membership.StoreStanding(
            self._tenant.standing.value,
            self._tenant.subnets,
            self._tenant.lost,
            self._following.silent,
            not self._following.has_contact,
            self._mirror.revision,
            len(self._members.left_out) if self._members is not None else 0,
        )

    def notes(self) -> list[StoreRemark]:
        """Return what an administrator should know."""
        notes = self._following.notes(self._member.interface)
        if self._following.silent_since is not None and self._document is not None:
            notes += remarks.describe_way(self._gateway.hosts, self.prefixes(self._document))
        problem = self._in_force.problem
        if problem is not None:
            notes.append(
                StoreRemark(f"the document is not taken, and the last one stays in force: {problem}")
            )
        notes += remarks.describe_loss(self._tenant.lost)
        notes += [
            each
            for each in (self._keeping.trouble, self._holding.refusal, self.key_delay)
            if each is not None
        ]
        reason = self.describe_standing()
        return [*notes, *([reason] if reason is not None else [])]

    # Joining

    def _is_ready(self) -> bool:
        if self._snapshot is None:
            return False
        if self._following.has_contact:
            return self._tenant.standing in TAKES_PART
        return self._following.trouble is not None  # with what is known from before

    def _reason_to_wait(self) -> str | None:
        if self._following.history is not None:
            return str(self.notes()[0])
        if self._following.silent_since is not None:
            return str(self._following.trouble) if self._following.trouble is not None else None
        reason = self._holding.refusal or self.describe_standing()
        return None if reason is None else str(reason)

    # Following the keys

    def _spoke(self) -> None:
        self._holding.spoke()
        if self._member.endpoint is None:
            prefixes = self.prefixes(self._document) if self._document is not None else ()
            found = find_address(self._gateway.local, self._member, prefixes)
            if found is not None:
                self.take_address(found)
        self._gathered.set()

    def _changed(self) -> None:
        self._gathered.set()

    def _tell(self) -> None:
        self._told.set()
        self._told = trio.Event()

    # What the keys say

    async def _read_members(self) -> None:
        """Read the keys again when they have changed, but not for each change of many."""
        while True:
            with trio.move_on_after(1.0):
                await self._gathered.wait()
            if self._mirror.forget_departed(trio.current_time()) or self._own_keys is not self._own_keys_read:
                self._gathered.set()
            if not self._gathered.is_set():
                continue
            self._gathered = trio.Event()
            began = trio.current_time()
            self._read_document()
            await self._read()
            took = trio.current_time() - began
            await trio.sleep(max(self.gathering, SHARE * took))

    def _read_document(self) -> None:
        """Take the document if it is another, and can be trusted and read."""
        value = self.document_value()
        if value is None:
            if self._document is None and self._following.has_contact:
                self._following.trouble = StoreError(self.describe_missing(was_there=False))
            self._in_force.lose(self.describe_missing(was_there=True))
            return
        error = self._in_force.take(value, self.read_document)
        if error is not None and self._document is None:
            self._following.trouble = StoreError(str(error))

    async def _read(self) -> None:
        """Read who takes part, and hand out a snapshot of it.  Of many, other tasks have their turn in between."""
        # Without a document there is no network: deleting everything does not remove any peer.
        if self._document is not None and self.document_value() is not None:
            read_at = self._mirror.revision
            self._members = await compute(self.reading_members(self._document))
            self._own_keys_read = self._own_keys
            self._keeping.keep_in(self._files.of(self._own_keys_read))
            self._why_untold = self.take_keys(self._own_keys_read, self._document, self._members)
            self._holding.read(read_at)
            if not self._following.has_contact or self._has_left:
                self._hand_out()
        self._tell()

    def _hand_out(self) -> None:
        """Let the table be as things stand."""
        if self._document is None or self._members is None:
            return
        snapshot = self.make_snapshot(self._document, self._members)
        if snapshot != self._snapshot:
            self._snapshot = snapshot
            self._take(snapshot)
        self._tell()

    # Holding a subnet

    def _part_of(self) -> tuple[M, D] | None:
        """Return the members and the document, for the calls to make; None if there are to be none."""
        if self._document is None or self._members is None or self._has_left:
            return None
        return self._members, self._document

    def _stands(self, is_new: bool) -> None:
        """Hand out a snapshot of how this host stands, which *is_new* or not."""
        if is_new:
            self._log_standing()
        self._hand_out()

    def _log_standing(self) -> None:
        standing = self._tenant.standing
        if standing in TAKES_PART:
            log.info(
                "joined network=%s subnets=%s",
                self._name,
                ",".join(map(str, self._tenant.subnets)) or "-",
            )
        elif (reason := self.describe_standing()) is not None:
            log.warning("%s", reason)

    # What is kept on disk

    def _state(self) -> tuple[int, tuple[Prefix, ...]] | None:
        """Return what changes with what is to be kept; None where nothing is, as of a host that was never a node."""
        following = self._following
        if not following.has_contact or self._mirror.cluster is None or self._document is None:
            return None
        if not self._keeping.has_kept and self._tenant.standing not in TAKES_PART:
            return None
        return self._mirror.generation, self._tenant.subnets

    def _known(self) -> saved.Saved:
        assert self._mirror.cluster is not None
        return saved.Saved(
            self._mirror.cluster,
            self._mirror.revision,
            tuple(self._mirror.kvs.values()),
            self._tenant.subnets,
            self.serial,
        )


def _is_lasting(error: StoreError) -> bool:
    return not isinstance(error, GatewayError) or error.is_lasting
