"""``ping``: the host of the server answers an ICMP echo request to the virtual address."""

from __future__ import annotations

import contextlib
import secrets
import socket as sockets
from ipaddress import ip_address
from typing import TYPE_CHECKING

from overlay.errors import PacketError
from overlay.services.checking import Result
from overlay.wire.icmp import Echo

if TYPE_CHECKING:
    from overlay.services.checks.dialer import Dialer
    from peers.service import Check

# Ours
LARGEST = 65535  # bytes
OTHERS = 10_000  # messages from the address that answer other requests, and are ignored
DATA_SIZE = 16  # bytes that identify the answer


async def run(_: Check, dialer: Dialer) -> Result:
    """Send one request and wait for its answer."""
    socket, identifier = await dialer.echo()
    with socket:
        is_v4 = socket.family == sockets.AF_INET
        request = Echo(False, identifier, 1, secrets.token_bytes(DATA_SIZE))
        own, virtual = ip_address(socket.getsockname()[0]), ip_address(dialer.address)
        await socket.send(request.build(own, virtual))
        for _number in range(OTHERS):
            message = await socket.recv(LARGEST)
            if is_v4:  # with its IP header
                message = message[(message[0] & 15) * 4 :]
            with contextlib.suppress(PacketError):
                echo = Echo.parse(message, own.version)
                if echo.is_reply and echo.data == request.data:
                    return Result(True, "answers pings")
        return Result(False, "sends many messages, and none answers the ping")
