"""The table of peers and services with which a capture names packets: the agent's, fetched again and again."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from overlay.capturing.whose import Whose, read_row
from overlay.cli.exits import Failure
from overlay.errors import OverlayError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Ask = Callable[[Mapping[str, Any], Callable[[list[Any]], object]], dict[str, Any]]

# Ours
AGAIN = 5.0  # seconds until it is fetched again, if there are packets to name
SHARE = 50  # the pause is at least this many times as long as the answer took


class PeerNames:
    """Finds the peer of a packet.  *ask* asks the agent, and passes rows to its argument."""

    def __init__(
        self, ask: Ask, now: Callable[[], float] = time.monotonic, *, follows_endpoints: bool
    ) -> None:
        """With *follows_endpoints*, fetch the table again even if it has not changed, because endpoints can."""
        self.whose = Whose()
        self._ask, self._now, self._follows_endpoints = ask, now, follows_endpoints
        self._number: object = None
        self._due = 0.0

    def read(self, **asked: object) -> Mapping[str, Any]:
        """Ask, and return the rest of the agent's answer.  Raises the errors of ask(), and ValueError for an invalid
        answer.
        """
        begun, rows = self._now(), list[object]()
        message: dict[str, object] = {"op": "capture", **asked}
        if self._number is not None and not self._follows_endpoints:
            message["table"] = self._number
        try:
            said: dict[str, Any] = dict(self._ask(message, rows.extend)["capture"])
        except (KeyError, TypeError) as error:
            raise ValueError("the answer is not about a capture") from error
        if self._number is None or self._follows_endpoints or said.get("table") != self._number:
            self.whose.replace(map(read_row, rows))
        self._number = said.get("table")
        self._put_off(begun)
        return said

    def follow(self) -> None:
        """Ask again if it is time; until the agent answers, the known table stays."""
        begun = self._now()
        if begun < self._due:
            return
        try:
            self.read()
        except (OverlayError, Failure, ValueError):
            self._put_off(begun)

    def _put_off(self, begun: float) -> None:
        now = self._now()
        self._due = now + max(AGAIN, SHARE * (now - begun))
