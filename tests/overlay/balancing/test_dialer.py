"""The dialer of a check: its flow is pinned before the first packet, and released after the last."""

from __future__ import annotations

import contextlib
import errno
import socket
from types import SimpleNamespace

import pytest
import trio

from overlay.balancing.dialer import DialedServer, TunnelDialer
from overlay.balancing.sight import Sight
from overlay.host import clock
from overlay.services.checks.dialer import NotAskedError
from overlay.wire.flow_key import flow_key
from peers.addresses import parse_address

LOOPBACK = parse_address("127.0.0.1")
QUICK = 0.1  # seconds; after 0.2 s without anything to send, the kernel acknowledges a connection (TCP_DELACK_MAX)


class Pins:
    """Pins that record what they are asked, and what was received by then."""

    def __init__(self, is_refused=False):
        self.sight = Sight()
        self.asked, self._is_refused = [], is_refused

    async def pin(self, flow, target):
        self.asked.append(("pin", flow, target))
        if self._is_refused:
            raise NotAskedError("no")

    def unpin(self, flow):
        self.asked.append(("unpin", flow))


def way(pins, port, own=(LOOPBACK,), address=LOOPBACK):
    service = SimpleNamespace(name="web")
    server = SimpleNamespace(name="web1", peer="web1")
    return TunnelDialer(
        DialedServer(
            pins, (3, 7), own, SimpleNamespace(service=service, server=server, address=address, port=port)
        )
    )


async def quick_tries(listening):
    """Yield until a try took less time than after which a kernel acknowledges a connection by itself.

    What the tries before it left at *listening*, which does not block from now on, is gone.
    """
    listening.setblocking(False)
    while True:
        with contextlib.suppress(BlockingIOError):
            while True:
                listening.accept()[0].close()
        began = trio.current_time()
        yield
        if trio.current_time() - began < QUICK:
            break


def flow(protocol, connected):
    host, port = connected.getsockname()
    other, other_port = connected.getpeername()
    return flow_key(protocol, socket.inet_aton(host), port, socket.inet_aton(other), other_port)


def test_stream_is_pinned_by_its_own_port_and_unpinned_at_the_end():
    async def main():
        pins = Pins()
        with socket.create_server(("127.0.0.1", 0)) as listening:
            made = way(pins, listening.getsockname()[1])
            async with await made.connect() as stream:
                expected = flow(6, stream.socket)
                assert pins.asked == [("pin", expected, (3, 7))]
            made.close()
        assert pins.asked[1:] == [("unpin", expected)]

    trio.run(main)


def test_datagrams_are_pinned_likewise():
    async def main():
        pins = Pins()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind(("127.0.0.1", 0))
            with await way(pins, other.getsockname()[1]).associate() as associated:
                assert pins.asked == [("pin", flow(17, associated), (3, 7))]

    trio.run(main)


def test_nothing_is_sent_where_the_forwarder_refuses():
    async def main():
        pins = Pins(is_refused=True)
        with socket.create_server(("127.0.0.1", 0)) as listening:
            listening.setblocking(False)
            made = way(pins, listening.getsockname()[1])
            with pytest.raises(NotAskedError):
                await made.connect()
            with pytest.raises(NotAskedError):
                await made.knock()
            made.close()
            with pytest.raises(BlockingIOError):
                listening.accept()
        assert [kind for kind, *_ in pins.asked] == ["pin", "pin", "unpin", "unpin"]

    trio.run(main)


def test_node_without_an_address_of_the_family_cannot_check():
    async def main():
        pins = Pins()
        with pytest.raises(NotAskedError, match="no IPv4 address for checks to come from"):
            await way(pins, 80, own=(parse_address("fd00::1"),)).connect()
        assert pins.asked == []

    trio.run(main)


def test_check_fails_for_a_fault_of_this_node_where_another_forwarder_begins_meanwhile():
    pins = Pins()
    made = way(pins, 80)
    assert not made.was_blind
    pins.sight.begun(clock.now())
    assert made.was_blind
    assert not way(pins, 80).was_blind


def test_knock_is_seen_by_no_program_and_leaves_no_connection():
    async def main():
        with socket.create_server(("127.0.0.1", 0)) as listening:
            async for _ in quick_tries(listening):
                pins = Pins()
                made = way(pins, listening.getsockname()[1])
                await made.knock()
                made.close()
            with pytest.raises(BlockingIOError):
                listening.accept()
        assert [kind for kind, *_ in pins.asked] == ["pin", "unpin"]
        with pytest.raises(ConnectionRefusedError):
            await made.knock()

    trio.run(main)


def test_node_without_a_descriptor_left_says_so(monkeypatch):
    def refuse(*_):
        raise OSError(errno.EMFILE, "")

    async def main():
        monkeypatch.setattr(socket, "socket", refuse)
        with pytest.raises(NotAskedError, match="too many open files"):
            await way(Pins(), 80).knock()
        monkeypatch.undo()

    trio.run(main)
