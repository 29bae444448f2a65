"""What all tenancies share: a subnet of one host under an etcd lease, its state, and the calls that it may ask for.

Who gets what is decided by a subclass for each layout of keys: see leases.py.
"""

from __future__ import annotations

import enum
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeAlias, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from peers.addresses import Prefix

# Ours
RENEWALS = 3  # keepalives in the time of a lease
LONGEST_INTERVAL = 60.0  # seconds between two, however long the lease is: by them a silent etcd is noticed
SPREAD = (
    0.1  # of the time between two keepalives, by chance, so that those of many hosts do not come together
)
PAUSE = 1.0  # seconds before a call is made again that was without success

M = TypeVar("M")
D = TypeVar("D")


class Standing(enum.Enum):
    """How this host stands in the network."""

    NOT_YET = "not yet"  # it has no subnet, and asks for one
    HELD = "held"  # it has a subnet and a lease that lives
    LOST = "lost"  # it had them, and claims them again
    FULL = "full"  # no subnet is free
    COPY = "copy"  # another host has the same private key
    UNVOUCHED = "unvouched"  # it has a key, but the administrator does not vouch for it
    TAKEN = "taken"  # the administrator vouches for it with a subnet that is not available
    LISTED = "listed"  # it is in the document, and needs no lease


@dataclass(frozen=True, slots=True)
class Grant:
    """A lease is available that lasts *seconds*."""

    seconds: int


@dataclass(frozen=True, slots=True)
class KeepAlive:
    """The *lease* is to start again."""

    lease: int


class Value(Protocol):
    """What stands at the key of a host."""

    def build(self) -> bytes:
        """Return it as bytes."""


@dataclass(frozen=True, slots=True)
class Write:
    """Write *value* at *key* under *lease*, if the key was last changed at *modified*; 0 means that it must not exist.

    The same transaction removes the keys *removed*, this host's from before, each as it was last changed.
    """

    key: bytes
    value: Value
    lease: int
    modified: int
    removed: tuple[tuple[bytes, int], ...] = ()


Call: TypeAlias = Grant | KeepAlive | Write


class Tenant(ABC, Generic[M, D]):
    """The subnet of one host in a network with members *M* and a document *D*.  *chance* draws bytes."""

    def __init__(self, chance: Callable[[int], bytes] = bytes) -> None:
        self.standing = Standing.NOT_YET
        self.subnets: tuple[Prefix, ...] = ()
        """What it holds, or held last and may hold again."""
        self.lost: tuple[Prefix, ...] = ()
        """What it held until another did; what runs here may still have addresses of it."""
        self.lease = 0
        self._chance = chance
        self._seconds = 0
        self._kept_at = self._wrote_at = self._held_since = 0.0
        self._renew_after = 0.0
        self._not_before = 0.0
        self._held: bytes | None = None  # the key that we wrote last

    def remember(self, subnets: tuple[Prefix, ...]) -> None:
        """Hold *subnets* without having asked, as those that this host had a short time ago."""
        self.subnets, self.standing = subnets, Standing.LOST

    # What happened

    def granted(self, lease: int, seconds: int, now: float) -> None:
        """Take note of a new lease."""
        self.lease, self._seconds = lease, seconds
        self.kept(seconds, now)

    def kept(self, seconds: int, now: float) -> None:
        """Take note of the answer to a keepalive: with 0 *seconds* the lease is gone."""
        if not seconds:
            self.lease = 0
            self.standing = Standing.LOST if self.standing is Standing.HELD else self.standing
            return
        self._kept_at = now
        share = 1 + SPREAD * (2 * self._chance(1)[0] / 255 - 1)
        self._renew_after = min(self._seconds / RENEWALS, LONGEST_INTERVAL) * share

    def wrote(self, key: bytes, now: float, *, succeeded: bool) -> None:
        """Take note of what became of a write.  One without success is thought over when the change that it met is
        known.
        """
        self._wrote_at = now
        if not succeeded:
            self._not_before = now + PAUSE
        elif key != self._held:
            self._held, self._held_since = key, now

    def failed(self, now: float, pause: float = PAUSE) -> None:
        """Take note of a call without an answer, or that was refused: none is made for *pause* seconds."""
        self._not_before = now + pause

    def left(self) -> None:
        """Take note that the lease was given back."""
        self.lease, self.subnets, self.standing = 0, (), Standing.NOT_YET

    # What to do

    @abstractmethod
    def next_call(self, members: M, document: D, now: float) -> Call | None:
        """Return the call that is to be made now; None if there is none.  The standing is then that of *members*."""

    def renewal(self, now: float) -> Call | None:
        """Return the keepalive, if it is due."""
        if self.lease and now >= max(self._not_before, self._kept_at + self._renew_after):
            return KeepAlive(self.lease)
        return None

    def next_deadline(self) -> float:
        """Return when next_call() has something to say for the sake of time alone."""
        if self.standing in {Standing.FULL, Standing.COPY, Standing.TAKEN}:  # until somebody goes
            return math.inf
        is_settled = self.lease and self.standing not in {Standing.NOT_YET, Standing.LOST}
        return max(self._kept_at + self._renew_after if is_settled else 0.0, self._not_before)
