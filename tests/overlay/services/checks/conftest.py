from __future__ import annotations

import dataclasses
import socket

import pytest
import trio

from overlay.services import checks
from peers.service import Check


@dataclasses.dataclass
class Loopback:
    """A Dialer that connects to this host."""

    port: int
    address: str = "127.0.0.1"
    service: str = "web"
    server: str = "web2"
    peer: str = "paris"

    async def knock(self):
        (await self._connected(socket.SOCK_STREAM)).close()

    async def connect(self):
        return trio.SocketStream(await self._connected(socket.SOCK_STREAM))

    async def associate(self):
        return await self._connected(socket.SOCK_DGRAM)

    async def echo(self):
        opened = trio.socket.socket(self._family, socket.SOCK_RAW, _ICMP[self._family])
        await opened.connect((self.address, 0))
        return opened, 4711

    @property
    def _family(self):
        return socket.AF_INET6 if ":" in self.address else socket.AF_INET

    async def _connected(self, kind):
        opened = trio.socket.socket(self._family, kind)
        try:
            await opened.connect((self.address, self.port))
        except OSError:
            opened.close()
            raise
        return opened


_ICMP = {socket.AF_INET: socket.IPPROTO_ICMP, socket.AF_INET6: socket.IPPROTO_ICMPV6}


@pytest.fixture
def check():
    """Run a check against a server that handles each connection, or each datagram, with *serve*."""

    def run(kind, serve=None, *, datagrams=None, address="127.0.0.1", port=None, clock=None, **keys):
        async def main():
            async with trio.open_nursery() as nursery:
                found = port
                if serve is not None:
                    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
                    found = listeners[0].socket.getsockname()[1]
                    nursery.start_soon(trio.serve_listeners, _forgiving(serve), listeners)
                if datagrams is not None:
                    server = trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                    await server.bind(("127.0.0.1", 0))
                    found = server.getsockname()[1]
                    nursery.start_soon(_answer, server, datagrams)
                # A busy machine may take a while to answer, or to start a script.
                result = await checks.run(
                    Check(kind, **{"timeout": 60.0, **keys}), Loopback(found or 1, address)
                )
                nursery.cancel_scope.cancel()
            return result

        return trio.run(main, clock=clock)

    return run


def _forgiving(serve):
    async def handle(stream):
        try:
            async with stream:
                await serve(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    return handle


async def _answer(server, datagrams):
    with server:
        while True:
            data, source = await server.recvfrom(65535)
            for answer in datagrams(data):
                await server.sendto(answer, source)
