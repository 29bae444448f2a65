"""Which counters of a keypair have been received: the sliding window of RFC 6479."""

from __future__ import annotations

# Specification (whitepaper sections 5.4.6 and 6.1; the window's size is RFC 6479's with 8192 bits in 64-bit words)
REJECT_AFTER_MESSAGES = 2**64 - 2**13 - 1
WINDOW = 8128  # this many counters below the newest are still distinguished


class ReplayWindow:
    """The counters seen under one keypair.

    RFC 6479 keeps a ring of words with a bit for each counter *seen*.  Here one integer has a bit for each counter
    still *missing* below the newest; bit i stands for base + i. The integer changes only when a message is lost or
    late: in-order messages cost a comparison and an addition, an idle session takes almost no memory, and any counter
    costs at most a few operations on two kilobytes.  A missing counter leaves the window when it is too old; the base
    follows the newest in steps of a window, when the next gap is recorded.
    """

    __slots__ = ("_base", "_missing", "_newest")

    def __init__(self) -> None:
        self._newest = -1
        self._base = 0
        self._missing = 0

    def check(self, counter: int) -> bool:
        """Return whether *counter* is new, inside the window and below REJECT_AFTER_MESSAGES.

        Nothing is recorded: call mark() once the message has been authenticated, so that a forged counter
        cannot push genuine messages out of the window.
        """
        age = self._newest - counter
        if age < 0:
            return counter < REJECT_AFTER_MESSAGES
        return age <= WINDOW and (self._missing >> (counter - self._base)) & 1 == 1

    def mark(self, counter: int) -> None:
        """Record *counter*, whose message was authentic.  A counter that check() refuses changes nothing."""
        self.accept(counter)

    def accept(self, counter: int) -> bool:
        """Check and mark *counter* in one call, for a message that has been authenticated already."""
        if counter == self._newest + 1 and counter < REJECT_AFTER_MESSAGES:
            self._newest = counter
            return True
        if self.accept_run(counter, 1):
            return True
        if not self.check(counter):
            return False
        self._missing ^= 1 << (counter - self._base)
        return True

    def accept_run(self, first: int, count: int) -> bool:
        """Record *count* (at least 1) consecutive counters from *first* on if all are newer than any seen.

        Otherwise return False with nothing recorded; the counters may still be acceptable one by one.
        """
        expected = self._newest + 1
        if first < expected or first + count > REJECT_AFTER_MESSAGES:
            return False
        if first > expected:
            self._note_gap(expected, first)
        self._newest = first + count - 1
        return True

    def _note_gap(self, expected: int, first: int) -> None:
        # The peer chooses the gap, which may be near 2**64 wide: bound it by the window before shifting by it.
        floor = first - WINDOW
        if floor - self._base > WINDOW:
            self._missing >>= floor - self._base
            self._base = floor
        start = max(expected, floor)
        self._missing |= ((1 << (first - start)) - 1) << (start - self._base)
