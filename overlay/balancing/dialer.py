"""Opens the connections of a check: through the tunnel, only to the server under test."""

from __future__ import annotations

import errno
import functools
import os
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from overlay.host import clock
from overlay.services.checks.dialer import NotAskedError, why
from overlay.wire.flow_key import flow_key
from overlay.wire.ip import PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_TCP, PROTOCOL_UDP

if TYPE_CHECKING:
    from collections.abc import Sequence

    from overlay.balancing.pins import Pins
    from overlay.services.watching import DueCheck
    from peers.addresses import Address

# Ours
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: a connection is ended by a RST


@dataclass(frozen=True, slots=True)
class DialedServer:
    """The server that a check dials, and how its flows get there.

    *target* is the number of the service and that of its server; *own* are the addresses of this node.  *behind* is the
    number of the server's peer, None if no session with it is needed.
    """

    pins: Pins
    target: tuple[int, int]
    own: Sequence[Address]
    probe: DueCheck
    behind: int | None = None


class TunnelDialer:
    """Opens the flows of one check through the tunnel to its server: each is pinned before its first packet."""

    def __init__(self, dialed: DialedServer) -> None:
        self._dialed, probe = dialed, dialed.probe
        self._pins = dialed.pins
        self._began = clock.now()
        self._vip = probe.address
        self._flows: list[bytes] = []
        self.address, self.port = _text(self._vip), probe.port
        self.service, self.server, self.peer = probe.service.name, probe.server.name, probe.server.peer
        self._family = socket.AF_INET if self._vip.version == 4 else socket.AF_INET6

    async def knock(self) -> None:
        """Return once the server accepts a TCP connection, in three packets: SYN, SYN and ACK, RST.

        The server's program does not notice, and neither end is left with a connection in TIME_WAIT.
        """
        with self._open(socket.SOCK_STREAM) as opened:
            _hasten(opened)
            await self._lead(opened, PROTOCOL_TCP)
            code = opened.connect_ex((self.address, self.port))
            if code == errno.EINPROGRESS:
                await trio.lowlevel.wait_writable(opened)
                code = opened.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                raise OSError(code, os.strerror(code))

    def open(self, protocol: int) -> tuple[socket.socket, bytes]:
        """Return a socket for TCP or UDP to the server, and its flow, which must be pinned before the socket is used.

        A TCP connection ends with a RST, as is usual for health checks: nothing is expected after the answer.  Raises
        NotAskedError.
        """
        opened = self._open(socket.SOCK_STREAM if protocol == PROTOCOL_TCP else socket.SOCK_DGRAM)
        if protocol == PROTOCOL_TCP:
            _hasten(opened)
        flow = self._flow(opened, protocol)
        self._flows.append(flow)
        return opened, flow

    @property
    def target(self) -> tuple[int, int]:
        """The numbers of the service and the server."""
        return self._dialed.target

    async def connect(self) -> trio.SocketStream:
        return trio.SocketStream(await self._connected(socket.SOCK_STREAM, PROTOCOL_TCP))

    async def associate(self) -> trio.socket.SocketType:
        return await self._connected(socket.SOCK_DGRAM, PROTOCOL_UDP)

    async def echo(self) -> tuple[trio.socket.SocketType, int]:
        protocol = PROTOCOL_ICMP if self._vip.version == 4 else PROTOCOL_ICMPV6
        identifier = int.from_bytes(os.urandom(2), "big")
        opened = trio.socket.from_stdlib_socket(self._open(socket.SOCK_RAW, protocol))
        try:
            await self._pin(flow_key(protocol, self._source().packed, identifier, self._vip.packed, 0))
            await opened.connect((self.address, 0))
        except BaseException:
            opened.close()
            raise
        return opened, identifier

    def close(self) -> None:
        """Unpin the flows."""
        for flow in self._flows:
            self._pins.unpin(flow)

    @property
    def was_blind(self) -> bool:
        """Whether packets of the check may have been late or lost because of this node."""
        return self._pins.sight.was_blind(self._began, clock.now(), self._dialed.behind)

    def _source(self) -> Address:
        """Return this node's own address that checks come from.  Raises NotAskedError if it has none of the family."""
        for address in self._dialed.own:
            if address.version == self._vip.version:
                return address
        raise NotAskedError(f"this node has no IPv{self._vip.version} address for checks to come from")

    def _open(self, kind: int, protocol: int = 0) -> socket.socket:
        """Return a socket that is bound to this node's own address.  Raises NotAskedError."""
        source = _text(self._source())
        opened = None
        try:
            opened = socket.socket(self._family, kind | socket.SOCK_NONBLOCK, protocol)
            opened.bind((source, 0))
        except OSError as error:
            if opened is not None:
                opened.close()
            raise NotAskedError(why(error)) from error
        return opened

    async def _connected(self, kind: int, protocol: int) -> trio.socket.SocketType:
        opened = trio.socket.from_stdlib_socket(self._open(kind))
        try:
            await self._lead(opened, protocol)
            await opened.connect((self.address, self.port))
        except BaseException:
            opened.close()
            raise
        return opened

    async def _lead(self, opened: socket.socket | trio.socket.SocketType, protocol: int) -> None:
        """Direct packets from *opened* to the virtual address to the server."""
        await self._pin(self._flow(opened, protocol))

    def _flow(self, opened: socket.socket | trio.socket.SocketType, protocol: int) -> bytes:
        port = opened.getsockname()[1]
        return flow_key(protocol, self._source().packed, port, self._vip.packed, self.port)

    async def _pin(self, flow: bytes) -> None:
        self._flows.append(flow)
        await self._pins.pin(flow, self._dialed.target)


def _hasten(opened: socket.socket) -> None:
    """Keep *opened* from sending pure acknowledgments: the request, or the RST at the end, acknowledges too."""
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


@functools.lru_cache(maxsize=4096)
def _text(address: Address) -> str:
    """Return *address* as text, which takes longer than everything else here."""
    return str(address)
