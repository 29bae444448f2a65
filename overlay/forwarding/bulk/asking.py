"""How often a peer is asked, by a hello, whether it runs an agent of this project.

One that never answers is asked less and less often.

A plain WireGuard peer counts each hello as a receive error, and there is nothing to gain from it.  But what runs at the
far end may be another program tomorrow.  So it is asked again after an interval that doubles up to a day, and soon if
something may have changed: a new endpoint, or a handshake that it starts long before one is due.  Such an agent also
says hello itself as soon as it has a super-packet or a large packet to send, and is answered in any case.
"""

from __future__ import annotations

from overlay.forwarding import state

# Ours
HELLOS = 3  # under one keypair, while a peer may be expected to answer; afterwards one at a time
LOYALTY = 5  # keypairs without an answer, after which a peer that once answered is not expected to any more
FIRST_PAUSE, LONGEST_PAUSE = 600.0, 86_400.0  # seconds between two that are not answered


class Asking(state.AskingState):
    """What is known about one peer in this respect.  Times are seconds of CLOCK_BOOTTIME."""

    __slots__ = ("_has_answered", "_last", "_unanswered")

    def __init__(self) -> None:
        self._has_answered = False
        self._unanswered = 0  # keypairs under which it was asked since its last answer
        self._last = self._next = 0.0  # when it was asked, and may be asked again
        self.is_worth_it = False  # a packet was sent that not every path carries: worth a hello

    def begin(self, now: float) -> int:
        """Return how many hellos may be sent under a keypair under which none was sent yet; 0 for none now."""
        patience = LOYALTY if self._has_answered else 1
        if self._unanswered < patience:
            allowed = HELLOS
        elif now < self._next:
            return 0
        else:
            allowed = 1
        self._unanswered += 1
        pause = FIRST_PAUSE * 2 ** min(max(0, self._unanswered - patience), 10)
        self._last, self._next = now, now + min(pause, LONGEST_PAUSE)
        return allowed

    def answered(self) -> None:
        """Note that the peer said hello: it runs an agent of this project."""
        self._has_answered, self._unanswered = True, 0

    def again(self) -> None:
        """Let the peer be asked soon, as another agent may run there now, but not at once if it was just asked."""
        self._next = min(self._next, self._last + FIRST_PAUSE)
