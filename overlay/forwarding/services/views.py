"""How another director chooses servers that sees them otherwise: its checks are its own.

A flow that it would lead elsewhere has to be told to it, though it is where this director leads it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from overlay.services.schedulers import Loads

if TYPE_CHECKING:
    from collections.abc import Sequence

    from overlay.services.schedulers import Real, Scheduler

_NO_LOADS = Loads()  # how many flows another director has is not known here


class View:
    """The choices of *scheduler*, one of the kind that the service has, with the weights that another director has."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self.version = 0  # the IP version that it is for; 0 for both
        self._sorry: int | None = None  # the index of the sorry server if that takes all new flows there

    def set_weights(
        self, version: int, reals: Sequence[Real], weights: Sequence[int], sorry: int | None
    ) -> None:
        """Set *weights* for *reals*; the last weight is for the server of the index *sorry*, if there is one."""
        self.version = version
        self._sorry = sorry if weights and weights[-1] else None
        self.scheduler.set_servers(
            [replace(real, weight=weight) for real, weight in zip(reals, weights, strict=False)]
        )

    def choose(self, flow: int) -> int | None:
        """Return the index of the server of the hash of a flow; None if there is none."""
        return self.scheduler.choose(flow, _NO_LOADS) if self._sorry is None else self._sorry
