"""One scrape: asks for the counters, and makes the samples in pieces, so that the rest of the agent does not wait."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from overlay.balancing.traffic import measure
from overlay.metrics import node
from overlay.metrics.exposition import Samples
from overlay.metrics.peers import PeerScrape

if TYPE_CHECKING:
    from overlay.answers.running import Running


async def collect(running: Running) -> Samples:
    """Return the samples of this moment.  What the forwarder does not report in time is left out."""
    samples = Samples()
    counted = await running.count()
    node.tell_node(samples, running, counted)
    if running.services and counted.is_complete:
        node.tell_services(
            samples, running, await measure(running.balancing.counting, running.balancing.numbers)
        )
    telling = PeerScrape(samples, running, counted)
    for remotes in telling.pieces():
        await trio.lowlevel.checkpoint()
        telling.tell(remotes)
    telling.end()
    pids = node.pids_of(running)
    await trio.to_thread.run_sync(node.tell_processes, samples, pids)
    return samples
