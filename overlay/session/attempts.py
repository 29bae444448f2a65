"""One attempt to reach a peer, and the pace of attempts that no packet waits for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from overlay.session.constants import GREETINGS_PER_SECOND

if TYPE_CHECKING:
    from overlay.crypto import noise
    from overlay.session.constants import Timing
    from overlay.session.identities import Identity


@dataclass(slots=True)
class Attempt:
    """From the request for a session until it is complete or given up."""

    began_at: float
    due_at: float  # when to send the initiation, or to send it again
    is_idle: bool = False  # no packets wait for it, and the peer was given up: no hurry
    is_awaited: bool = True  # packets wait for it, or did when it began
    retries: int = 0
    index: int = -1  # of the last initiation sent; meaningless without a state
    state: noise.InitiatorState | None = None
    identity: Identity | None = None  # our identity, with which it was made

    @property
    def is_paced(self) -> bool:
        """Return whether its initiations are repeated at the common pace, rather than after a pause of its own."""
        return not self.is_awaited and not self.is_idle

    def hurry(self, earliest: float) -> None:
        """Continue at the usual pace, but not before *earliest*: packets wait for it from now on."""
        self.is_awaited, self.due_at = True, min(self.due_at, earliest)

    def is_over(self, now: float, timing: Timing) -> bool:
        """Return whether to give the peer up rather than call it again."""
        is_too_long = self.is_paced and now - self.began_at > timing.longest_attempt
        return is_too_long or self.retries >= timing.max_retries


class Pace:
    """When to repeat initiations that no packet waits for: at most GREETINGS_PER_SECOND for all peers together, evenly
    spaced.

    With few peers, that is whenever an initiation is due. With ten thousand peers that do not answer, 2000 initiations
    would be repeated per second, which takes most of a processor; at this pace each peer has its turn every 40 seconds.
    """

    def __init__(self) -> None:
        self._taken = -math.inf

    def next(self, due_at: float) -> float:
        """Return the first free moment from *due_at* on, and take it."""
        self._taken = max(due_at, self._taken + 1 / GREETINGS_PER_SECOND)
        return self._taken
