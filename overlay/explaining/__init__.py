"""What would happen to one packet, and why: from its source to the far end of the tunnel, as far as this host knows.

It computes: the kernel's answers, and what the agent knows about its peers, come in as Facts.  Nothing is sent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.explaining import stations
from overlay.explaining.arriving import arrive
from overlay.explaining.explanation import Explanation, Origin
from overlay.explaining.leaving import leave
from overlay.explaining.origin import origin_of

if TYPE_CHECKING:
    from overlay.explaining.facts import Facts
    from overlay.explaining.flow import Flow


def explain(facts: Facts, flow: Flow) -> Explanation:
    """Return what would happen to a packet of *flow*.  Raises HostError if the kernel cannot be asked."""
    found = Explanation(flow.destination, flow.source, flow.size)
    came = origin_of(facts, flow)
    found.origin, found.enters = came.origin, came.interface
    if stations.is_bridged(facts, flow, found):
        pass  # the routes of this host do not matter
    elif came.origin is Origin.TUNNEL:
        arrive(facts, flow, came, found)
    else:
        leave(facts, flow, came, found)
    if facts.station is not None and found.station is None:
        stations.beside(facts, flow, found)
    if found.goes and facts.firewall is not None and facts.firewall.unread:
        found.doubt(f"the packet filters of this host are not all known: {'; '.join(facts.firewall.unread)}")
    if found.goes and found.size is not None and found.fit is None:
        found.doubt(
            f"whether {found.size} bytes fit is known only of packets that go through the tunnel to one peer"
        )
    return found
