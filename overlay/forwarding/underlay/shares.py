"""How much each peer has of a socket's send buffer, which all peers share.

A path that takes less than is sent fills the buffer with datagrams that wait for its device, and then no other peer
could send.  So while much waits, each peer may have only a share of what is free, as in a switch whose ports share
one memory (Choudhury and Hahne, "Dynamic queue length thresholds", 1998): one congested path gets a seventeenth of the
buffer, and thirty of them leave a third of it free.  What exceeds the share is dropped, as by any router
before a narrow link, and TCP adapts.

The kernel does not report how much a peer has there, but it reports when a send leaves.  Each queue is first in, first
out, so everything that the peer sent before has left too, or was dropped on the way.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, Protocol, TypeVar

P = TypeVar("P")  # whom a send is for: a peer

# Ours
LEAST_BUFFER = 2 * 1024 * 1024  # bytes; smaller ones have no shares that could hold a few super-packets
CROWDED = 32  # beyond this part of the buffer it is looked at who has what
CALM = 64  # below this part, no more
PART = 16  # what one peer may have, of what is free
LEAST_SHARE = 256 * 1024  # bytes: four super-packets
ASK = (
    128 * 1024
)  # bytes of one peer's after which it is asked when they have left: that costs some microseconds
SEND_COST = 768  # bytes that the kernel counts for a send, about, in addition to the datagrams


class SendQueue(Protocol):
    """What is asked of the kernel; SocketQueues has it."""

    size: int

    def waiting(self) -> int: ...
    def number_sends(self) -> bool: ...
    def stop_numbers(self) -> None: ...
    def departed(self) -> list[int]: ...
    def dropped(self) -> int: ...
    def arrived(self) -> int: ...


class _Account:
    """What one peer has sent since the buffer was crowded, and how much of it is known to have left."""

    __slots__ = ("asked", "gone", "numbers", "sent")

    def __init__(self) -> None:
        self.sent = self.gone = self.asked = 0
        self.numbers: deque[int] = deque()  # of sends that have not left, oldest first


class Shares(Generic[P]):
    """The shares of one socket's send buffer, from when it is crowded until it is not."""

    def __init__(self, queue: SendQueue) -> None:
        self._queue = queue
        self._accounts: dict[P, _Account] = {}
        self._sends: dict[
            int, tuple[_Account, int]
        ] = {}  # by number: whose, and how much it had sent by then
        self._next = 0
        self.is_over = False
        self.are_known = queue.number_sends()

    @classmethod
    def if_crowded(cls, queue: SendQueue) -> Shares[P] | None:
        """Return the shares of *queue* if much waits in it and the kernel tells what leaves."""
        if queue.size < LEAST_BUFFER or queue.waiting() <= queue.size // CROWDED:
            return None
        made = cls(queue)
        return made if made.are_known else None

    def admits(self, peer: P) -> bool:
        """Return whether *peer* has less than its share, and may send more."""
        waiting = self._queue.waiting()
        if waiting < self._queue.size // CALM:
            self.is_over = True
            return True
        account = self._accounts.get(peer)
        if account is None:
            return True
        share = max(LEAST_SHARE, (self._queue.size - waiting) // PART)
        if account.sent - account.gone < share:
            return True
        self.take_departures()
        return account.sent - account.gone < share

    def asks(self, peer: P) -> bool:
        """Return whether the departure of the next send to *peer* is to be told."""
        account = self._accounts.get(peer)
        return account is None or account.sent - account.asked >= ASK

    def sent(self, peer: P, size: int, is_told: bool) -> None:
        """Note a send of *size* bytes to *peer*, whose departure will be told if asks() wanted it."""
        account = self._accounts.get(peer)
        if account is None:
            account = self._accounts[peer] = _Account()
        account.sent += size + SEND_COST
        if not is_told:
            return
        account.asked = account.sent
        account.numbers.append(self._next)
        self._sends[self._next] = account, account.sent
        self._next = (self._next + 1) & 0xFFFFFFFF

    def failed(self) -> None:
        """Begin again after a send that failed and was to be told: not every kernel leaves its number to the next.

        A departure told late then counts for a send that is still there,
        and its peer gets a little more than its share.
        """
        self._accounts, self._sends, self._next = {}, {}, 0
        self._queue.number_sends()

    def take_departures(self) -> bool:
        """Learn from the kernel what has left, and return whether it told anything."""
        departed = self._queue.departed()
        for number in departed:
            known = self._sends.get(number)
            if known is None:
                continue
            account, reached = known
            account.gone = max(account.gone, reached)
            numbers = account.numbers
            while numbers and self._sends[numbers[0]][1] <= reached:
                del self._sends[numbers.popleft()]
        return bool(departed)

    def forget(self, peer: P) -> None:
        """Forget a peer that was removed."""
        account = self._accounts.pop(peer, None)
        if account is not None:
            for number in account.numbers:
                del self._sends[number]

    def end(self) -> None:
        """Stop asking to be told."""
        self._queue.stop_numbers()
