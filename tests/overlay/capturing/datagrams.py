"""UDP packets, by their addresses and ports."""

from __future__ import annotations

from tests import packets


def udp(source, destination, from_port, to_port, payload):
    """Return a whole packet."""
    version = 6 if ":" in source else 4
    return packets.udp(
        payload, version=version, ports=(from_port, to_port), source=source, destination=destination
    )
