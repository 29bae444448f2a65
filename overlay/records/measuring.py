"""Takes the samples of the history: counters of all peers, and round trip and loss of those with traffic.

For the counters, the forwarder gets one question every ten seconds, which it answers a few peers at a time while
packets flow.

Round trip and loss are those of in-band pings: PINGS in a sample, to peers that answer them, and only while packets
have passed in both directions since the sample before.  So an idle session stays as silent as in WireGuard, and no ping
keeps one alive.  If there are many such peers, PINGED of them are measured in each sample, in turn.  Of other peers the
round trip is that of their last handshake, entered once, and the loss is not known.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

import trio

from overlay import ticks
from overlay.host import clock
from overlay.records.history import INTERVAL
from overlay.supervision.forwarder import ForwarderGoneError

if TYPE_CHECKING:
    from overlay.answers.running import Running

# Ours
FIRST = 2.0  # seconds until the first sample, which rates start from
PEERS_AT_ONCE = 100  # entered before other tasks have their turn, in half a millisecond
PINGS, PING_PAUSE = 3, 0.3  # to one peer in a sample, and seconds between two
PING_TIMEOUT = 2.0  # seconds; a ping without an answer then is lost
PINGED = 48  # peers in one sample
PINGED_AT_ONCE = 16  # so that most of the pings that may wait are left to users


class Measuring:
    """The samples of one node, while it runs."""

    def __init__(self, running: Running) -> None:
        self._running, self._history = running, running.history
        self._pinged: dict[int, None] = {}  # peers that were pinged, the one longest ago first
        self._sampled_at = clock.now()

    async def run(self) -> None:
        """Take samples until cancelled."""
        due = ticks.this_second() + FIRST  # at the whole second, when other periodic checks run
        while True:
            await trio.sleep_until(due)
            await self.sample()
            due = max(due + INTERVAL, trio.current_time())

    async def sample(self) -> None:
        """Take one sample."""
        running, before, self._sampled_at = self._running, self._sampled_at, clock.now()
        forwarder = running.supervisor.forwarder
        self._history.begin(self._sampled_at, running.roster.by_number)
        counted = await running.count()
        active = list[int]()
        for done, (number, counters) in enumerate(counted.peers.items(), start=1):
            if self._history.count(number, counters, forwarder, self._sampled_at):
                active.append(number)
            remote = running.roster.by_number.get(number)
            if remote is not None and remote.shaken_at > before and remote.round_trip is not None:
                self._history.measured(number, remote.round_trip, None, "handshake")
            if done % PEERS_AT_ONCE == 0:
                await trio.lowlevel.checkpoint()
        await self._ping_some(active)

    async def _ping_some(self, active: list[int]) -> None:
        """Ping those of the *active* peers whose last ping is longest ago."""
        known = set(active)
        self._pinged = {number: None for number in self._pinged if number in known}
        fresh = [number for number in active if number not in self._pinged]
        room = trio.CapacityLimiter(PINGED_AT_ONCE)

        async def measure(number: int) -> None:
            async with room:
                await self._measure(number)

        async with trio.open_nursery() as nursery:
            for number in [*fresh, *self._pinged][:PINGED]:
                self._pinged.pop(number, None)
                self._pinged[number] = None
                nursery.start_soon(measure, number)

    async def _measure(self, number: int) -> None:
        """Ping one peer, unless it is not known to answer."""
        answered, lost, is_possible = list[float](), 0, True

        async def ping() -> None:
            nonlocal lost, is_possible
            try:
                pong = await self._running.supervisor.ping(number, PING_TIMEOUT)
            except ForwarderGoneError:
                is_possible = False
                return
            if pong is None:
                lost += 1
            elif pong.seconds is None:
                is_possible = False
            else:
                answered.append(pong.seconds)

        async with trio.open_nursery() as nursery:
            for _ in range(PINGS):
                if not is_possible:
                    break
                nursery.start_soon(ping)
                await trio.sleep(PING_PAUSE)
        if answered or lost:
            median = statistics.median(answered) if answered else None
            self._history.measured(number, median, lost / (lost + len(answered)), "pings")
