"""The document of a network that is in force: the last one that could be read."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Generic, TypeVar

from peers.errors import StoreError, TableError

if TYPE_CHECKING:
    from collections.abc import Callable

D = TypeVar("D")

log = logging.getLogger("overlay")


class InForce(Generic[D]):
    """*document* is None until one could be read; *problem* is with a later one, None if that is the one in force."""

    def __init__(self) -> None:
        self.document: D | None = None
        self.problem: str | None = None
        self._value: bytes | None = None  # that was read last

    def take(self, value: bytes, read: Callable[[], D]) -> StoreError | TableError | None:
        """Take the document that *read* makes of *value*, if that has changed; return why it cannot be read.

        The document in force then stays.
        """
        if value == self._value:
            return None
        self._value = value
        try:
            self.document = read()
        except (StoreError, TableError) as error:
            if self.problem != str(error):
                log.warning("%s", error)
            self.problem = str(error)
            return error
        self.problem = None
        return None

    def lose(self, problem: str) -> None:
        """Note that there is no document any more: the one in force stays, with this problem."""
        self._value = None
        if self.document is not None:
            self.problem = problem
