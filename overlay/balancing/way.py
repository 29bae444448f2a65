"""The way of a check through the tunnel to its server."""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING

import trio

from overlay.wire.ip import PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_TCP, PROTOCOL_UDP

if TYPE_CHECKING:
    from collections.abc import Iterable

    from overlay.balancing.pins import Flow, Pins
    from overlay.services.watching import Probe
    from peers.addresses import Address


class Way:
    """The way of one check through the tunnel to its server: each flow is pinned before its first packet."""

    def __init__(self, pins: Pins, target: tuple[int, int], own: Iterable[Address], probe: Probe) -> None:
        """*target* is the number of the service and that of its server; *own* are the addresses of this node."""
        self._pins, self._target, self._own = pins, target, tuple(own)
        self._vip = probe.service.addresses[0]
        self._flows: list[Flow] = []
        self.address, self.port = str(self._vip), probe.port
        self.service, self.server, self.peer = probe.service.name, probe.server.name, probe.server.peer
        self._family = socket.AF_INET if self._vip.version == 4 else socket.AF_INET6

    async def connect(self) -> trio.SocketStream:
        return trio.SocketStream(await self._connected(socket.SOCK_STREAM, PROTOCOL_TCP))

    async def associate(self) -> trio.socket.SocketType:
        return await self._connected(socket.SOCK_DGRAM, PROTOCOL_UDP)

    async def echo(self) -> tuple[trio.socket.SocketType, int]:
        protocol = PROTOCOL_ICMP if self._vip.version == 4 else PROTOCOL_ICMPV6
        identifier = int.from_bytes(os.urandom(2), "big")
        opened = trio.socket.socket(self._family, socket.SOCK_RAW, protocol)
        try:
            source = self._source()
            await opened.bind((source, 0))
            await self._pin(protocol, source, identifier, 0)
            await opened.connect((self.address, 0))
        except BaseException:
            opened.close()
            raise
        return opened, identifier

    async def close(self) -> None:
        for flow in self._flows:
            await self._pins.unpin(flow)

    def _source(self) -> str:
        """Return this node's own address that checks come from.  Raises OSError if it has none of the family."""
        for address in self._own:
            if address.version == self._vip.version:
                return str(address)
        raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))

    async def _connected(self, kind: int, protocol: int) -> trio.socket.SocketType:
        opened = trio.socket.socket(self._family, kind)
        try:
            source = self._source()
            await opened.bind((source, 0))
            await self._pin(protocol, source, opened.getsockname()[1], self.port)
            await opened.connect((self.address, self.port))
        except BaseException:
            opened.close()
            raise
        return opened

    async def _pin(self, protocol: int, source: str, port: int, vip_port: int) -> None:
        flow = protocol, socket.inet_pton(self._family, source), port, self._vip.packed, vip_port
        await self._pins.pin(flow, self._target)
        self._flows.append(flow)
