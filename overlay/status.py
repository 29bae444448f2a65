"""The values that ``overlay status`` shows, in JSON form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from overlay.troubles import unresolved
from overlay.troubles.peers import told_too_little, troubles_of
from overlay.wire.addresses import format_sockaddr
from peers.mac import format_mac
from peers.peer import format_public_key
from peers.stores.membership import AttendedStore

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from overlay.diagnosis.finding import Finding
    from overlay.encap.encapsulation import Encapsulation
    from overlay.host.netlink.path_mtu_exceptions import LearntMtu
    from overlay.link.messages import PeerCounters
    from overlay.roster import Remote
    from overlay.session.peer import HandshakeStatus
    from overlay.wire.addresses import Sockaddr
    from peers.stores.store import Store

# Of PeerCounters, shown unchanged
COUNTED = (
    "rx_bytes", "tx_bytes", "rx_packets", "tx_packets", "rx_units", "tx_units", "learnt_macs", "session_lanes",
    "open_lanes", "unit_segments",
)  # fmt: skip
LANE_COUNTED = ("tx_bytes", "rx_bytes", "tx_packets", "rx_packets")  # of PeerCounters.by_lane
UNENCRYPTED = "unencrypted"  # the state of a peer without handshakes
STATES = (
    "up",
    "idle",
    "connecting",
    "silent",
    "unconfirmed",
    "unreachable",
    unresolved.UNRESOLVED,
    UNENCRYPTED,
)
"""All states of a peer."""


def state_of(
    handshake: HandshakeStatus, now: float, reject_after_time: float, *, is_silent: bool = False
) -> str:
    """Return ``up``, ``silent``, ``connecting``, ``unconfirmed``, ``unreachable`` or ``idle``."""
    is_doubted = handshake.is_doubted(now, reject_after_time)
    if handshake.is_given_up:  # even while the last keypair could still be used: the peer does not answer
        return "unconfirmed" if is_doubted else "unreachable"
    completed = handshake.completed_at
    if completed is not None and now - completed < reject_after_time:
        return "silent" if is_silent else "up"
    if is_doubted:
        return "unconfirmed"
    return "connecting" if handshake.is_running else "idle"


def peer_status(
    remote: Remote,
    handshake: HandshakeStatus | None,
    counters: PeerCounters | None,
    now: float,
    reject_after_time: float,
    learnt: Mapping[str, LearntMtu] | None = None,
    compare: str = "compare the preshared keys",
) -> dict[str, Any]:
    """Return one row.  Times are ages in seconds; None means never.  Without encryption there is no *handshake*.

    The values of *counters* are None without them.

    *learnt* is what the kernel knows about the MTU of paths, by underlay address.  *compare* says how to find out
    whether preshared keys differ.
    """
    endpoint, told = _place(remote, counters, learnt)
    return {
        **_configured(remote),
        **_shaken(handshake, now),
        **_counted(remote, counters, now),
        "endpoint": format_sockaddr(endpoint) if endpoint is not None else None,
        "kernel_path_mtu": None if told is None else told.mtu,
        "kernel_path_mtu_expires": None if told is None else round(told.seconds, 3),
        "state": peer_state(remote, handshake, endpoint, now, reject_after_time),
        "notes": list(
            map(str, peer_findings(remote, handshake, counters, now, reject_after_time, learnt, compare))
        ),
    }


def peer_findings(
    remote: Remote,
    handshake: HandshakeStatus | None,
    counters: PeerCounters | None,
    now: float,
    reject_after_time: float,
    learnt: Mapping[str, LearntMtu] | None = None,
    compare: str = "compare the preshared keys",
) -> list[Finding]:
    """Return the findings on *remote*; the arguments are those of peer_status()."""
    endpoint, told = _place(remote, counters, learnt)
    path_mtu = counters.path_mtu if counters is not None else 0
    found = troubles_of(remote, handshake, now, reject_after_time, compare)
    if (finding := unresolved.describe(remote, endpoint)) is not None:
        found.append(finding)
    if told is not None and (finding := told_too_little(remote.peer.name, told, path_mtu)) is not None:
        found.append(finding)
    return found


def _place(
    remote: Remote, counters: PeerCounters | None, learnt: Mapping[str, LearntMtu] | None
) -> tuple[Sockaddr | None, LearntMtu | None]:
    """Return where *remote* is, and what the kernel knows about the MTU of the path there."""
    endpoint = counters.endpoint if counters is not None else remote.endpoint
    return endpoint, None if endpoint is None else (learnt or {}).get(endpoint[0].partition("%")[0])


def peer_state(
    remote: Remote,
    handshake: HandshakeStatus | None,
    endpoint: Sockaddr | None,
    now: float,
    reject_after_time: float,
) -> str:
    """Return the state of *remote*, which is called at *endpoint*; without encryption there is no *handshake*."""
    if handshake is None:
        return UNENCRYPTED
    if unresolved.is_nowhere(remote, endpoint):
        return unresolved.UNRESOLVED
    return state_of(handshake, now, reject_after_time, is_silent=remote.is_silent)


def drops_of(remote: Remote, counters: PeerCounters | None) -> dict[str, int]:
    """Return the drops of and for *remote*, by reason: by the forwarder, if it reported them, and by the agent."""
    drops = dict(counters.drops) if counters is not None else {}
    if remote.replays:
        drops["initiation_replayed"] = remote.replays
    if remote.foreign:
        drops["control_foreign"] = drops.get("control_foreign", 0) + remote.foreign
    return drops


def _configured(remote: Remote) -> dict[str, Any]:
    """Return the values of *remote* in the peers file."""
    peer, encapsulation = remote.peer, remote.encapsulation
    return {
        "name": peer.name,
        "public_key": None if peer.public_key is None else format_public_key(peer.public_key),
        "encapsulation": encapsulation.name,
        "is_encrypted": encapsulation.is_encrypted,
        "addresses": [str(address) for address in peer.addresses],
        "subnets": [str(subnet) for subnet in peer.subnets],
        "mac": shown_mac(encapsulation, remote.ends.mac),
        "own_mac": shown_mac(encapsulation, remote.ends.own_mac),
        "keepalive": peer.keepalive,
        "changed_by_wg": peer.by_wg,
    }


def _shaken(handshake: HandshakeStatus | None, now: float) -> dict[str, Any]:
    """Return the state of the handshakes."""
    if handshake is None:
        return {"last_handshake": None, "clock_behind": None, "unconfirmed": 0, "responses_refused": 0}
    return {
        "last_handshake": age(handshake.completed_at, now),
        "clock_behind": round(handshake.behind, 3) if handshake.has_clock_behind else None,
        "unconfirmed": handshake.unconfirmed,
        "responses_refused": handshake.refused,
    }


def _counted(remote: Remote, counters: PeerCounters | None, now: float) -> dict[str, Any]:
    """Return the forwarder's counters, None for each without *counters*; the agent's own drops are always known."""
    drops = drops_of(remote, counters)
    return {
        **{name: None if counters is None else getattr(counters, name) for name in COUNTED},
        "last_received": age((counters and counters.last_received) or None, now),
        "path_mtu": (counters and counters.path_mtu) or None,
        "drops": drops if counters or drops else None,
    }


def doubt(row: dict[str, Any]) -> dict[str, Any]:
    """Return *row* of a peer for which the forwarder did not report, so that its state is not known."""
    return row if row["state"] == UNENCRYPTED else {**row, "state": None}


def lane_traffic(counted: Iterable[PeerCounters], lanes: int) -> list[dict[str, int]]:
    """Return the traffic of each of *lanes*, for all peers that were *counted*; empty for a single lane."""
    rows = [counters.by_lane for counters in counted if counters.by_lane]
    return [
        {
            name: sum(row[lane][place] for row in rows if lane < len(row))
            for place, name in enumerate(LANE_COUNTED)
        }
        for lane in range(lanes if lanes > 1 else 0)
    ]


def describe_silence(pid: int | None, patience: float) -> str:
    """Return a sentence on a forwarder that did not report all its counters."""
    process = "" if pid is None else f" (process {pid})"
    return (
        f"the forwarder{process} did not report its counters within {patience:g} s, so it is not known whether "
        "packets pass; a forwarder that hangs is restarted within a minute"
    )


def shown_mac(encapsulation: Encapsulation, mac: bytes) -> str | None:
    """Return *mac* as text if frames end at the tunnel's ends; None otherwise."""
    has_frames = encapsulation.clear is not None and encapsulation.clear.frames is not None
    return format_mac(mac) if has_frames else None


def store_standing(store: Store) -> dict[str, Any] | None:
    """Return the state of this host in a store that it takes part in; None with a file."""
    if not isinstance(store, AttendedStore):
        return None
    standing = store.standing()
    return {
        "state": standing.state,
        "subnets": [str(subnet) for subnet in standing.subnets],
        "lost": [str(subnet) for subnet in standing.lost],
        "silent": None if standing.silent is None else round(standing.silent, 3),
        "table_from": "disk" if standing.is_saved else "store",
        "revision": standing.revision,
        "left_out": standing.left_out,
    }


def age(moment: float | None, now: float) -> float | None:
    """Return how many seconds ago *moment* was, to the millisecond."""
    return None if moment is None else round(max(0.0, now - moment), 3)
