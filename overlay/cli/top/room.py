"""How peers, services and events share the lines of the screen."""

from __future__ import annotations

# Ours
SERVICES = 5  # lines for services at most, and one that says how many more there are
EVENTS = 6  # and for events
AROUND = 4  # lines above and below peers, services and events


def share(services: int, events: int, height: int) -> tuple[int, int]:
    """Return how many lines *services* and *events* get on a screen of *height* lines.

    Together these are at most half of the lines that they share with the peers.
    """
    room = max(height - AROUND, 0) // 2
    for_services = min(services, SERVICES + (services > SERVICES))
    for_events = min(events, EVENTS)
    if for_services + for_events > room:
        for_events = min(for_events, max(room - for_services, room // 2))
        for_services = min(for_services, room - for_events)
    return for_services, for_events
