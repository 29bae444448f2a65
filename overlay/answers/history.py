"""What passed between this node and its peers over the last hour."""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.answers.peer import find_peer, refuse_peer
from overlay.host import clock
from overlay.questions import refusal
from overlay.records.history import INTERVAL, SAMPLES, VALUES

if TYPE_CHECKING:
    from overlay.answers.running import Running
    from overlay.questions import Answer, Request, TellRows
    from overlay.records.history import History
    from overlay.roster import Remote

# Ours
VALUES_AT_ONCE = 2000  # sent before other tasks get their turn, in one millisecond


async def answer(running: Running, request: Request, tell_rows: TellRows) -> Answer:
    """Send the last ``samples`` of the peer called ``name``, or of all peers: one row for each, before the answer.

    The times of the samples and of the answer are in seconds since boot, time in suspend included (CLOCK_BOOTTIME).
    """
    name, samples = request.get("name"), request.get("samples", SAMPLES)
    if isinstance(samples, bool) or not isinstance(samples, int) or not 1 <= samples <= SAMPLES:
        return refusal(f"samples must be a whole number from 1 to {SAMPLES}", "usage")
    remotes = list(running.roster.by_name.values())
    if name is not None:
        remote = find_peer(name, running.roster)
        if remote is None:
            return refuse_peer(name, running)
        remotes = [remote]
    times, at_once = running.history.times(samples), max(1, VALUES_AT_ONCE // samples)
    told = range(
        running.history.taken - len(times), running.history.taken
    )  # the same for all peers, even if further samples are taken meanwhile
    for at in range(0, len(remotes), at_once):
        await tell_rows([_row(running.history, remote, told) for remote in remotes[at : at + at_once]])
    return {
        "ok": True,
        "history": {"interval_seconds": INTERVAL, "times_seconds": times, "now_seconds": clock.now()},
    }


def _row(history: History, remote: Remote, samples: range) -> Answer:
    values = history.row(remote.number, samples)
    return {
        "name": remote.peer.name,
        "is_kept": values is not None,
        "round_trip_by": history.measured_by(remote.number),
        **(values or dict.fromkeys(VALUES)),
    }
