"""The metrics of peers: several lines for each of possibly ten thousand peers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.host import clock
from overlay.host.process import processes
from overlay.metrics.exposition import escape
from overlay.metrics.node import steady
from overlay.status import STATES, UNENCRYPTED, drops_of, peer_state
from peers.peer import TAP

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from overlay.answers.running import Running
    from overlay.link.messages import PeerCounters
    from overlay.metrics.exposition import Samples
    from overlay.roster import Remote
    from overlay.supervision.counters import Counted

# Ours
PEERS_AT_ONCE = 100  # whose lines are made before other tasks have their turn, in one to two milliseconds
MEASURED_SAMPLES = 2  # of the history, 10 s each: the last one may be incomplete
MOST_DROPS = 50_000  # series of drops of peers in one scrape; those of further peers are left out and counted

_COUNTED = {
    "overlay_peer_receive_bytes_total": "rx_bytes",
    "overlay_peer_transmit_bytes_total": "tx_bytes",
    "overlay_peer_receive_packets_total": "rx_packets",
    "overlay_peer_transmit_packets_total": "tx_packets",
    "overlay_peer_receive_units_total": "rx_units",
    "overlay_peer_transmit_units_total": "tx_units",
}
"""The field of PeerCounters for each metric."""
_MEASURED = {
    "round_trip_seconds": "overlay_peer_round_trip_seconds",
    "loss_ratio": "overlay_peer_loss_ratio",
}
"""The metric for the last value of each series of the history."""


class PeerScrape:
    """The peers of one scrape; *counted* is what the forwarder reported for them."""

    def __init__(self, samples: Samples, running: Running, counted: Counted) -> None:
        self._samples, self._running, self._counted = samples, running, counted
        self._now, self._reject_after_time = clock.now(), running.timing.reject_after_time
        self._epoch = processes.wall_time(0.0)
        self._is_tap = running.node().table.network.device == TAP
        self._states = dict.fromkeys(STATES, 0)
        self._left_out = 0
        taken = running.history.taken
        self._last_samples = range(max(0, taken - MEASURED_SAMPLES), taken)
        # Each line of one family goes to the end of one list.
        lines = samples.lines
        self._counters = [(name, field, lines[name].append) for name, field in _COUNTED.items()]

    def pieces(self) -> Iterator[Sequence[Remote]]:
        """Yield the peers, in groups small enough to be written without a pause."""
        remotes = list(self._running.roster.by_number.values())
        for at in range(0, len(remotes), PEERS_AT_ONCE):
            yield remotes[at : at + PEERS_AT_ONCE]

    def tell(self, remotes: Sequence[Remote]) -> None:
        """Add the samples of *remotes*."""
        known = self._running.roster.by_number
        for remote in remotes:
            if remote.number not in known:
                continue  # a reload has just removed it
            counters = self._counted.peers.get(remote.number)
            label = f'peer="{escape(remote.peer.name)}"'
            self._tell_state(remote, counters, label)
            if counters is not None:
                self._tell_counters(counters, label)
            self._tell_measured(remote, label)
            if counters is not None or self._counted.is_complete:
                self._tell_drops(remote, counters, label)

    def end(self) -> None:
        """Add the metrics of all peers together."""
        if self._counted.is_complete:
            for state, count in self._states.items():
                self._samples.add("overlay_peers", count, state=state)
        self._samples.add("overlay_left_out_series", self._left_out)

    def _tell_state(self, remote: Remote, counters: PeerCounters | None, label: str) -> None:
        handshake = None
        if remote.encapsulation.is_encrypted:
            handshake = self._running.engine.sessions.status(remote.number)
        endpoint = counters.endpoint if counters is not None else remote.endpoint
        state = peer_state(remote, handshake, endpoint, self._now, self._reject_after_time)
        lines = self._samples.lines
        # Whether a tunnel works is not known while the forwarder does not report: see status.doubt().
        if counters is not None or self._counted.is_complete or state == UNENCRYPTED:
            self._states[state] += 1
            lines["overlay_peer_state"].append(f'overlay_peer_state{{{label},state="{state}"}} 1\n')
        if handshake is not None and handshake.completed_at is not None:
            at = steady(self._epoch + handshake.completed_at)
            name = "overlay_peer_last_handshake_timestamp_seconds"
            lines[name].append(f"{name}{{{label}}} {at}\n")

    def _tell_counters(self, counters: PeerCounters, label: str) -> None:
        for name, field, append in self._counters:
            append(f"{name}{{{label}}} {getattr(counters, field)}\n")
        lines = self._samples.lines
        if counters.last_received:
            name = "overlay_peer_last_receive_timestamp_seconds"
            lines[name].append(f"{name}{{{label}}} {steady(self._epoch + counters.last_received)}\n")
        if counters.path_mtu:
            name = "overlay_peer_path_mtu_bytes"
            lines[name].append(f"{name}{{{label}}} {counters.path_mtu}\n")
        if counters.by_lane:
            lines["overlay_peer_lanes"].append(f"overlay_peer_lanes{{{label}}} {counters.open_lanes}\n")
        if self._is_tap:
            name = "overlay_peer_learnt_macs"
            lines[name].append(f"{name}{{{label}}} {counters.learnt_macs}\n")

    def _tell_measured(self, remote: Remote, label: str) -> None:
        measured = self._running.history.row(remote.number, self._last_samples)
        if measured is None:
            return
        for field, name in _MEASURED.items():
            value = next((each for each in reversed(measured[field]) if each is not None), None)
            if value is not None:
                self._samples.lines[name].append(f"{name}{{{label}}} {value}\n")

    def _tell_drops(self, remote: Remote, counters: PeerCounters | None, label: str) -> None:
        drops, name = drops_of(remote, counters), "overlay_peer_dropped_packets_total"
        lines = self._samples.lines[name]
        if len(lines) + len(drops) > MOST_DROPS:
            self._left_out += len(drops)
            return
        lines += [f'{name}{{{label},reason="{reason}"}} {count}\n' for reason, count in drops.items()]
