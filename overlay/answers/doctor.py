"""What is wrong with the node, its host and its peers, as findings, and which peers are worth pinging.

The findings on peers are sent in pieces before the rest.
"""

from __future__ import annotations

import heapq
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from overlay.answers.peer import find_peer, refuse_peer
from overlay.balancing import standing
from overlay.diagnosis.callers import check_misdirected, check_strangers
from overlay.diagnosis.finding import Finding
from overlay.diagnosis.kinds import describe
from overlay.diagnosis.registry import MORE_CHECKS
from overlay.encap import ENCAPSULATIONS
from overlay.encap.carrier import carried_by
from overlay.host import clock
from overlay.status import describe_silence
from overlay.supervision.lanes import why_interpreted
from overlay.troubles.peers import narrow_path, severity, unreached

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from overlay.answers.running import Running
    from overlay.host.netlink.path_mtu_exceptions import LearntMtu
    from overlay.questions import Answer, TellRows
    from overlay.roster import Remote, Roster
    from overlay.supervision.counters import Counted

# Ours
PEERS_AT_ONCE = 20  # examined before other tasks have their turn
VIEW_TIMEOUT = 1.0  # seconds; plain WireGuard does not answer
ASKED = 64  # peers at most to ping, those in trouble first


async def answer(running: Running, request: Answer, tell_rows: TellRows) -> Answer:
    """Send the findings on all peers, or on the one called ``name``, and return the rest.

    With ``is_survey`` packet filters and files are not examined, which would take time.  With ``is_compared`` the
    agents of other peers are asked what their peers files say about both ends.  ``ask`` in the answer has the names of
    the peers to ping.
    """
    asked = request.get("name")
    remote = None if asked is None else find_peer(asked, running.roster)
    if asked is not None and remote is None:
        return refuse_peer(asked, running)
    if request.get("is_survey") is not True:
        await running.host_notes.look_closely(is_fresh=True)
    counted = await running.count()
    remotes = list(running.roster.by_name.values()) if remote is None else [remote]
    known = _Known(
        counted,
        running.host.learnt_mtus(),
        any_asked=remote is not None or _is_alone(running),
    )
    ranked: list[tuple[int, int, str]] = []
    for at in range(0, len(remotes), PEERS_AT_ONCE):
        found: list[Finding] = []
        for position, each in enumerate(remotes[at : at + PEERS_AT_ONCE], at):
            rank = _examine(running, each, known, found)
            if rank is not None:
                ranked.append((rank, -position, each.peer.name))
        await tell_rows([describe(finding) for finding in found])
    ask = [name for _, _, name in heapq.nlargest(ASKED, ranked)]
    # Anybody can send such handshakes from a peer's address.  They matter only if the peer does not answer.
    told = running.refusals.describe_misdirected(running.node(), clock.now()).values()
    misplaced = running.misplaced(remote)
    await tell_rows([describe(each) for each in (*misplaced, *(each for each in told if each.peer in ask))])
    if request.get("is_compared") is True:
        await tell_rows([describe(each) for each in await _differences(running, ask)])
    node, host = running.node(), running.host
    return {
        "ok": True,
        "doctor": {
            "node": node.own.name,
            "interface": host.interface,
            "packet_path": running.supervisor.forwarder.packet_path,
            "peers": len(remotes),
            "ask": ask,
            "is_complete": counted.is_complete,
            "forwarder_pid": running.supervisor.forwarder.pid,
            "drops": _drops(running, counted),
            "devices": host.devices(node),
            "foreign": _foreign(remotes, counted),
            "floods": count_floods(running.roster, counted),
            "rekey_timeout_seconds": running.timing.rekey_timeout,
            "findings": [describe(finding) for finding in _of_node(running, counted)],
        },
    }


async def _differences(running: Running, names: Iterable[str]) -> list[Finding]:
    """Return where the peers *names* describe themselves or this node differently than the table in force here.

    With a tap, packets are not dropped for their sources; on a node that `wg` configures, nothing is known about the
    other end.
    """
    if running.node().is_tap or running.node().is_bare:
        return []
    known = (running.roster.by_name[each] for each in names if each in running.roster.by_name)
    agents = [each for each in known if each.is_confirmed and each.encapsulation.is_encrypted]
    return await running.views.differences(agents, VIEW_TIMEOUT)


def _drops(running: Running, counted: Counted) -> dict[str, int]:
    """Return how many packets were dropped so far, by reason, at the node and at all peers."""
    drops = Counter(counted.drops)
    for each in counted.peers.values():
        drops.update(each.drops)
    drops["tun_overrun"] += running.host.overruns()
    return dict(drops)


def _foreign(remotes: Iterable[Remote], counted: Counted) -> dict[str, int]:
    """Return how many packets of each of *remotes* were dropped for their sources, if any were."""
    known = ((each.peer.name, counted.peers.get(each.number)) for each in remotes)
    return {
        name: counters.drops["source"]
        for name, counters in known
        if counters and counters.drops.get("source")
    }


def count_floods(roster: Roster, counted: Counted) -> dict[str, list[int]]:
    """Return, by peer, how many of its datagrams were dropped unopened, if any, and how many packets it sent."""
    return {
        each.peer.name: [row.drops["crowded"], row.rx_packets]
        for each in roster.by_name.values()
        if (row := counted.peers.get(each.number)) is not None and row.drops.get("crowded")
    }


@dataclass(frozen=True, slots=True)
class _Known:
    # Facts that are read once for all peers.  With *any_asked* peers that cannot be called are pinged as well.
    counted: Counted
    learnt: Mapping[str, LearntMtu]
    any_asked: bool


def _examine(running: Running, remote: Remote, known: _Known, found: list[Finding]) -> int | None:
    """Add what is wrong with *remote* to *found*; return how useful it is to ping it, None if it must not be pinged.

    A peer that cannot be called, such as a mobile host, is expected to call, and nothing is wrong before it does.  Two
    such peers cannot reach each other; that is not a fault of either if both reach other peers.
    """
    now, counters = clock.now(), known.counted.peers.get(remote.number)
    row = running.row(remote, counters, now, known.learnt)
    own = running.findings(remote, counters, now, known.learnt) if row["notes"] else []
    found += own
    narrow = narrow_path(remote.peer.name, row["path_mtu"] or 0, running.host.mtu)
    found += [] if narrow is None else [narrow]
    if not own and known.counted.is_complete:
        unanswered = unreached(row, carried_by(ENCAPSULATIONS[row["encapsulation"]]))
        found += [] if unanswered is None else [unanswered]
    is_callable = row["endpoint"] is not None or remote.configured is not None
    return severity(row["state"], row["notes"]) if is_callable or known.any_asked else None


def _is_alone(running: Running) -> bool:
    """Return whether no tunnel of this node can start because neither end of any tunnel has an endpoint."""
    if running.node().own.endpoint is not None:
        return False
    return all(each.configured is None and each.endpoint is None for each in running.roster.by_name.values())


def _of_node(running: Running, counted: Counted) -> Iterator[Finding]:
    """Yield what is wrong with the node itself and its host."""
    if not counted.is_complete:
        trouble = running.supervisor.trouble or describe_silence(
            running.supervisor.forwarder.pid, counted.patience
        )
        yield Finding("forwarder_silent", trouble)
    if running.reloads.refusal is not None:
        problem = f"the current peers file and keys are not in effect: {running.reloads.refusal}"
        yield Finding("not_loaded", problem, "correct it; `overlay check` shows all mistakes")
    yield from running.reloads.notes
    is_interpreted = running.supervisor.forwarder.packet_path == "interpreted"
    if is_interpreted and counted.is_complete:  # a forwarder that does not answer may still be starting
        yield Finding("packet_path", *why_interpreted())
    for sentence in running.notes:
        yield Finding("start", sentence)
    found = running.host_notes.found
    yield from found
    yield from (
        each for each in running.host.findings(running.node(), checks=MORE_CHECKS) if each not in found
    )
    yield from _callers(running)
    for sentence in standing.troubles_of(running.balancing, running.services.values()):
        yield Finding("service", sentence)


def _callers(running: Running) -> Iterable[Finding]:
    """Yield callers with keys that no peer has, and callers for another key from an address where no peer is.

    A caller is left out if the peer at its address has completed a handshake since then: it has the right key by now.
    """
    now = clock.now()
    strangers: list[dict[str, Any]] = []
    for each in running.refusals.describe_strangers(now):
        remote = running.roster.by_name.get(each["peer"]) if each["peer"] is not None else None
        row = running.row(remote, None, now) if remote is not None else None
        last = (
            None
            if row is None or _host(row["endpoint"]) != _host(each["endpoint"])
            else row["last_handshake"]
        )
        if last is None or last > each["last_call"]:
            strangers.append(each)
    told = running.refusals.describe_misdirected(running.node(), now).values()
    missed = list(_missed(running, now)) if strangers or told else []
    yield from check_strangers(strangers, missed)
    yield from check_misdirected(told, missed)


def _missed(running: Running, now: float) -> Iterator[str]:
    """Yield the names of encrypted peers that are in trouble or have never completed a handshake."""
    for name, remote in running.roster.by_name.items():
        if remote.encapsulation.is_encrypted:
            row = running.row(remote, None, now)
            if row["last_handshake"] is None or severity(row["state"], ()):
                yield name


def _host(endpoint: str | None) -> str | None:
    """Return the host part of *endpoint*, which is written as in the status."""
    return None if endpoint is None else endpoint.rpartition(":")[0]
