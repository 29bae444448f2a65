"""Peers whose endpoint is a name without an address."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from overlay.diagnosis.finding import Finding
from overlay.wire.addresses import format_sockaddr

if TYPE_CHECKING:
    from overlay.roster import Remote
    from overlay.wire.addresses import Sockaddr

# Ours
UNRESOLVED = "unresolved"  # the state of a peer that is not called because its endpoint has no known address
RESOLVE_PAUSE = 10.0  # seconds between two look-ups of a name if they, or handshakes, fail


def describe(remote: Remote, endpoint: Sockaddr | None) -> Finding | None:
    """Return a finding on *remote* if its endpoint could not be looked up the last time; None if all is well.

    *endpoint* is where it is still called; None if nowhere.
    """
    name, error = remote.peer.name, remote.resolve_error
    if remote.configured is None or error is None:
        return None
    again = f"it is looked up again every {RESOLVE_PAUSE:g} s"
    if remote.configured.address is not None:
        remedy = "correct it in the peers file, or add that interface"
    else:
        look = f"getent ahosts {shlex.quote(remote.configured.host)}"
        remedy = f"correct the name in the peers file, or see what `{look}` finds on this host"
    if endpoint is None:
        problem = f"{name} cannot be reached, because its endpoint {error}"
        return Finding("unresolved", problem, f"{remedy}; {again}", name)
    return Finding(
        "name_stale",
        f"{name} is still contacted at {format_sockaddr(endpoint)}, its last known address, "
        f"because its endpoint {error}",
        f"{remedy}; {again}",
        name,
    )


def is_nowhere(remote: Remote, endpoint: Sockaddr | None) -> bool:
    """Return whether *remote* is not called at all because its endpoint could not be looked up."""
    return endpoint is None and remote.configured is not None and remote.resolve_error is not None


def why_lost(remote: Remote) -> str:
    """Return why *remote*, which was given up, may not have answered, in words for the log."""
    if remote.configured is None or remote.resolve_error is None:
        return "it does not answer"
    return f"it does not answer, and its endpoint {remote.resolve_error}"
