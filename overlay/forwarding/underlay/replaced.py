"""The end of a socket that was replaced."""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.encap.encapsulation import Role
from overlay.wire.ip import PROTOCOL_UDP

if TYPE_CHECKING:
    from overlay.forwarding.tun.inbound import Inbound
    from overlay.forwarding.underlay.udp_socket import UdpSocket

# Ours
LAST_READS = 32  # what the buffer holds, and an end where more comes than is read


def read_out(inbound: Inbound, udp: UdpSocket, now: float) -> None:
    """Take what waits in *udp*, which is to be closed: nothing that came is lost with it."""
    if udp.protocol != PROTOCOL_UDP or udp.role == Role.SENDS:
        return
    for _ in range(LAST_READS):
        if not inbound.drain(udp, now):
            return
