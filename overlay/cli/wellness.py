"""``overlay status --check``: whether the node, or some of its peers, are well, as one sentence and an exit code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from overlay.durations import format_duration
from overlay.numbers import count
from overlay.troubles.peers import BEGINNING, STATES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from overlay.cli.agents import PeerStatus, Status

# Ours
UP = "up"  # with a session, so that the peer has answered
WANTING = ("down", "degraded", "sorry")  # states of services that are not well, worst first


@dataclass(frozen=True, slots=True)
class Wellness:
    """Whether what was asked about is well, and a sentence that says so or why not."""

    is_well: bool
    sentence: str


def judge_peer(peer: PeerStatus, max_silence: float | None) -> Wellness:
    """Return whether packets pass to and from *peer*, which must have sent something in the last *max_silence* seconds.

    None allows any silence, unless something shows that the peer is gone.
    """
    name, heard = peer.name, peer.last_received
    if peer.state is None or not peer.is_counted:
        return Wellness(
            False, f"the state of {name} is not known, because the forwarder did not report its counters"
        )
    if peer.state in STATES:
        return Wellness(False, peer.notes[0] if peer.notes else f"{name} is {peer.state}")
    if peer.state == BEGINNING:
        return Wellness(False, f"{name} has not answered yet: a handshake is under way")
    if max_silence is not None and heard is None:
        return Wellness(False, f"nothing has arrived from {name} yet")
    if max_silence is not None and heard is not None and heard > max_silence:
        return Wellness(
            False,
            f"{name} has been silent for {format_duration(heard)}, more than {format_duration(max_silence)}",
        )
    last = (
        "nothing has arrived yet"
        if heard is None
        else f"the last message arrived {format_duration(heard)} ago"
    )
    return Wellness(True, f"{name} is {peer.state}, {last}")


def judge_peers(peers: Sequence[PeerStatus], max_silence: float | None) -> Wellness:
    """Return whether each of *peers* is well; the first that is not says why."""
    judged = [judge_peer(peer, max_silence) for peer in peers]
    bad = [each for each in judged if not each.is_well]
    if bad:
        return bad[0]
    return Wellness(True, "; ".join(each.sentence for each in judged))


def judge_node(status: Status, max_silence: float | None, *, is_complete: bool) -> Wellness:
    """Return whether the node is well: its forwarder answers, it has its key, some peer is well, and no service lacks
    servers.

    A node is well if one of several peers is gone, but not if all are.
    """
    if not is_complete:
        return Wellness(
            False, status.notes[0] if status.notes else "the forwarder did not report its counters"
        )
    if status.key_error is not None:
        return Wellness(False, status.key_error)
    if status.absent.waiting:
        return Wellness(False, status.absent.describe())
    wanting = [f"{status.services[state]} {state}" for state in WANTING if status.services.get(state)]
    if wanting:
        all_services = sum(status.services.values())
        return Wellness(
            False,
            f"of {count(all_services, 'service')}, {' and '.join(wanting)}: `overlay services` says why",
        )
    judged = [judge_peer(peer, max_silence) for peer in status.peers]
    well = sum(each.is_well for each in judged)
    unheard = sum(
        each.is_well and peer.state != UP and peer.last_received is None
        for each, peer in zip(judged, status.peers, strict=True)
    )
    if judged and not well:
        return Wellness(False, f"none of {count(len(judged), 'peer')} is well: {judged[0].sentence}")
    sentence = f"{status.interface} is well, and "
    if not judged:
        sentence += f"has {status.absent.describe()}"
    elif len(judged) == 1:
        sentence += "nothing has arrived from its only peer yet" if unheard else "so is its only peer"
    elif well == unheard:
        sentence += f"nothing has arrived from any of {count(len(judged), 'peer')} yet"
    else:
        sentence += f"so are {well - unheard} of {count(len(judged), 'peer')}"
    if status.reload_error is not None:
        sentence += f", but the current peers file and keys are not in effect: {status.reload_error}"
    return Wellness(True, sentence)
