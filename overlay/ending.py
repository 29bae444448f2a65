"""How an agent ends, on request or by an error, and which changes to the host are undone then.

Only a requested stop opens the host again.  After an error, or after the agent was killed, the ``unreachable`` routes
stay, which keep the overlay's packets from leaving unencrypted by the default route: another agent is likely to start,
and nobody has allowed these packets to go elsewhere.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from overlay.errors import OverlayError
from peers.errors import PeersError

if TYPE_CHECKING:
    from collections.abc import Iterator


class StoppedError(Exception):
    """The agent was told to stop.  Carries no data; it ends the nursery."""


@contextlib.contextmanager
def until_stopped() -> Iterator[None]:
    """Let StoppedError end the block without an error; of a group of errors, raise the first that is of this project.

    If the system refused something without a sentence of ours, such as another file, a group of these errors is raised.
    ``except*`` is not used here: with Python 3.11.0 to 3.11.3, an error raised in it comes out in a group (gh-103590).
    """
    try:
        yield
    except StoppedError:
        return
    except BaseExceptionGroup as group:
        _, left = group.split(StoppedError)
        if left is None:
            return
        ours, others = left.split((OverlayError, PeersError))
        if others is not None:
            is_bug = others.split(OSError)[1] is not None
            raise (left if is_bug else others) from None
        assert ours is not None
        raise _first(ours) from None


def is_wanted(error: BaseException | None) -> bool:
    """Return whether an agent that ends with *error* was told to stop, even if something else went wrong, too."""
    if isinstance(error, BaseExceptionGroup):
        return error.subgroup(StoppedError) is not None
    return isinstance(error, StoppedError)


def _first(group: BaseExceptionGroup[Exception]) -> Exception:
    for error in group.exceptions:
        return _first(error) if isinstance(error, BaseExceptionGroup) else error
    raise AssertionError
