"""Connecting to etcd: of several addresses the first that answers.  What goes over connections is tested by
test_gateway.
"""

from __future__ import annotations

import errno
import socket

import pytest
import trio

from peers.peer import Endpoint
from peers.stores.etcd.connection import open_tcp


class Resolver(trio.abc.HostnameResolver):
    """Pretends that every host has these *addresses*."""

    def __init__(self, addresses):
        self.addresses = addresses

    async def getaddrinfo(self, host, port, family=0, type=0, proto=0, flags=0):  # noqa: A002  trio's name
        return [(kind, type, 6, "", (address, port)) for kind, address in self.addresses]

    async def getnameinfo(self, sockaddr, flags):
        raise AssertionError(f"nobody needs the name of {sockaddr}")


def connect(addresses, open_socket):
    """Return the peer address of the connection that is made, and how many sockets it took."""
    opened = []

    def open_one(family):
        opened.append(open_socket(family))
        return opened[-1]

    async def main():
        trio.socket.set_custom_hostname_resolver(Resolver(addresses))
        with socket.create_server(("127.0.0.1", 0)) as server:
            stream = await open_tcp(Endpoint("etcd.example", server.getsockname()[1]), open_one)
            async with stream:
                return stream.socket.getpeername()[0]

    found = trio.run(main)
    assert all(each.fileno() == -1 for each in opened)
    return found, len(opened)


def of_tcp(family):
    return socket.socket(family, socket.SOCK_STREAM)


def no_ipv6(family):
    if family == socket.AF_INET6:
        raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
    return of_tcp(family)


def test_first_address_that_answers_is_connected_to():
    good, refusing = (socket.AF_INET, "127.0.0.1"), (socket.AF_INET, "127.0.0.2")

    assert connect([good, refusing], of_tcp) == ("127.0.0.1", 1)
    assert connect([refusing, good], of_tcp) == ("127.0.0.1", 2)
    assert connect([(socket.AF_INET6, "::1"), good], no_ipv6) == ("127.0.0.1", 1)
    with pytest.raises(ConnectionRefusedError):
        connect([refusing, refusing], of_tcp)
