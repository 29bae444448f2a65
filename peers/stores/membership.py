"""Stores that a host takes part in, and does not only read: what such a store needs to know of it, and how
that stands.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from peers.stores.store import Store

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from peers.addresses import Prefix


class TaskStatus(Protocol):
    """What tells a nursery that a task has started, as trio's does."""

    def started(self) -> None:
        """Tell it."""


@dataclass(frozen=True, slots=True)
class OwnKeys:
    """The public keys that a host answers to: the one in use, and the *following* one while it is being replaced."""

    current: bytes
    following: bytes | None = None

    def __iter__(self) -> Iterator[bytes]:
        yield self.current
        if self.following is not None:
            yield self.following

    def other_than(self, public_key: bytes) -> bytes | None:
        """Return the one that is not *public_key*; None if there is but one."""
        return next((each for each in self if each != public_key), None)

    def narrowed(self, wanted: OwnKeys) -> OwnKeys:
        """Return *wanted* without a following key that is not among these: nothing may be told of that yet."""
        return wanted if wanted.following in {None, *self} else OwnKeys(wanted.current)


@dataclass(frozen=True, slots=True)
class Member:
    """A host that takes part.

    Its private key is in *key_file*, the one that is to follow in *next_key_file*; commands need *interface* if it is
    given.  *endpoint* is where others reach it; None leaves that to the store, which may ask *own_address* for the
    address of this host towards a host, or towards others in general.  *directory* is where it may keep what it knows.
    *open_socket* opens sockets of TCP, by address family, that reach the store past the overlay's own routes.
    """

    name: str
    keys: OwnKeys
    directory: Path
    key_file: Path
    next_key_file: Path
    own_address: Callable[[str | None], str | None]
    endpoint: str | None = None
    encapsulation: str | None = None
    open_socket: Callable[[int], socket.socket] | None = None
    interface: str | None = None


@dataclass(frozen=True, slots=True)
class StoreStanding:
    """How a host stands in a store.  *silent* is for how long the store has said nothing, in seconds;
    None if it speaks.

    *state* is a word of the store's, *subnets* what the host holds, *lost* what it held until another did.
    *is_saved* tells that the table comes from what was known when the agent ran last.
    """

    state: str
    subnets: tuple[Prefix, ...]
    lost: tuple[Prefix, ...]
    silent: float | None
    is_saved: bool
    revision: int
    left_out: int


@runtime_checkable
class AttendedStore(Store, Protocol):
    """A store that lives alongside the agent."""

    async def attend(self, member: Member, task_status: TaskStatus = ...) -> None:
        """Take part as *member* until cancelled; it has started when the other methods may be called."""

    async def joined(self, told: Callable[[str], None]) -> None:
        """Return when load() has this host; *told* is given a sentence on what that waits for, each once.

        Raises StoreError where a person has to act, and nothing is known that this host could go on with.
        """

    async def leave(self) -> str | None:
        """Give back what this host holds; return a sentence where that could not be done."""

    def accept(self) -> str | None:
        """Follow the store again whatever its history, which an administrator has looked at;
        None if it was followed.
        """

    def own_keys(self) -> OwnKeys:
        """The public keys of this host, as the store was told last."""

    def use_keys(self, keys: OwnKeys) -> None:
        """Be the host of *keys*, which it answers to already: others learn of a following key as soon as they may.

        It may be called from any thread, and takes effect within a second or two.
        """

    def key_delay(self) -> str | None:
        """Return a sentence on why others are not told of the following key yet; None if they are, or there is none."""

    def standing(self) -> StoreStanding:
        """Return how this host stands."""
