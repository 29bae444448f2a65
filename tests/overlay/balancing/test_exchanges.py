"""Checks that are made beside each other in one task, against servers of this host."""

from __future__ import annotations

import dataclasses
import os
import socket
import struct
from types import SimpleNamespace

import pytest
import trio
import trio.testing

from overlay.balancing.dialer import DialedServer, TunnelDialer
from overlay.balancing.exchanges import Exchanges
from overlay.services import checks
from overlay.services.checking import Result
from overlay.services.checks.dialer import NotAskedError
from peers.addresses import parse_address
from peers.service import Check
from tests.overlay.balancing.test_dialer import quick_tries
from tests.ports import refusing_port

LOOPBACK = parse_address("127.0.0.1")
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nready"


class Pins:
    """Leads each flow immediately; with *error*, none; with *is_slow*, when a test says so."""

    forwarders = 0

    def __init__(self, error=None, *, is_slow=False):
        self.error, self.is_slow = error, is_slow
        self.led, self.over, self.waiting = [], [], []

    def lead(self, key, target, led):
        self.led.append(key)
        if self.is_slow:
            self.waiting.append(led)
        else:
            led(self.error)

    def unpin(self, key):
        self.over.append(key)


def way(pins, port, own=(LOOPBACK,)):
    service = SimpleNamespace(name="web")
    server = SimpleNamespace(name="web1", peer="web1")
    return TunnelDialer(
        DialedServer(
            pins, (3, 7), own, SimpleNamespace(service=service, server=server, address=LOOPBACK, port=port)
        )
    )


async def run(*wanted, pins=None, act=None):
    """Make a check of each port at once, and return what they find, in the order of *wanted*: pairs of check
    and port.
    """
    pins = pins or Pins()
    found = {}
    async with trio.open_nursery() as nursery:
        made = Exchanges(pins)
        nursery.start_soon(made.run)
        await trio.testing.wait_all_tasks_blocked()
        for number, (check, port) in enumerate(wanted):
            opened = way(pins, port)
            exchange = checks.as_exchange(check, opened)
            made.begin(opened, exchange, lambda result, number=number: found.setdefault(number, result))
        if act is not None:
            await act()
        while len(found) < len(wanted):
            await trio.sleep(0.005)
        nursery.cancel_scope.cancel()
    return [found[number] for number in range(len(wanted))]


class Server:
    """Listens, and gives each connection in turn to *serve*; connections may stay open."""

    def __init__(self, serve):
        self._serve, self.heard = serve, []

    async def __aenter__(self):
        self._manager = trio.open_nursery()
        self._nursery = await self._manager.__aenter__()
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self._nursery.start_soon(trio.serve_listeners, self._handle, listeners)
        self.port = listeners[0].socket.getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self._nursery.cancel_scope.cancel()
        await self._manager.__aexit__(None, None, None)

    async def _handle(self, stream):
        try:
            async with stream:
                self.heard.append(await stream.receive_some())
                await self._serve(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass


def sending(*pieces, pause=0.0):
    async def serve(stream):
        for piece in pieces:
            await stream.send_all(piece)
            await trio.sleep(pause)

    return serve


async def silent(_):
    await trio.sleep_forever()


async def resetting(stream):
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


HTTP = Check("http", timeout=60.0)
PIECES = [bytes([each]) for each in OK]


@pytest.mark.parametrize(
    ("check", "serve", "result"),
    [
        (HTTP, sending(OK), Result(True, "answers 200")),
        (HTTP, sending(*PIECES, pause=0.001), Result(True, "answers 200")),
        (HTTP, sending(b"HTTP/1.1 404 Not Found\r\n\r\n"), Result(False, "answers 404")),
        (HTTP, sending(b"HTTP/1.1 103 Early Hints\r\n\r\n" + OK), Result(True, "answers 200")),
        (HTTP, sending(b"HTTP/1.1 200 OK\nServer: old\n\n"), Result(True, "answers 200")),
        (
            dataclasses.replace(HTTP, digest="b2fdda1b9f550ec1d3e2d5d1e5f2ec6d"),
            sending(OK),
            Result(False, "answers 200 with a body that has a different digest"),
        ),
        (HTTP, resetting, Result(False, "ended the connection: connection reset by peer")),
        (dataclasses.replace(HTTP, timeout=0.2), silent, Result(False, "no answer within 0.2 s")),
    ],
)
def test_answer_of_a_page_is_judged_as_by_a_check_of_its_own(check, serve, result):
    async def main():
        async with Server(serve) as server:
            assert await run((check, server.port)) == [result]
            assert server.heard[0].startswith(b"GET / HTTP/1.1\r\nHost: 127.0.0.1:")

    trio.run(main)


@pytest.mark.parametrize(
    "answer", [b"SSH-2.0-OpenSSH\r\n", b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 20 OK\r\n\r\n"]
)
def test_anything_but_http_is_reported_as_such(answer):
    async def main():
        async with Server(sending(answer)) as server:
            (found,) = await run((HTTP, server.port))
            assert not found.is_good
            assert found.reason.startswith("does not speak HTTP: ")

    trio.run(main)


@pytest.mark.slow
def test_server_that_hangs_or_floods_delays_no_other():
    async def flooding(stream):
        while True:
            await stream.send_all(b"HTTP/1.1 100 Continue\r\n\r\n" * 100)

    async def main():
        async with Server(sending(OK)) as good, Server(silent) as hanging, Server(flooding) as bad:
            hung = dataclasses.replace(HTTP, timeout=2.0)
            wanted = [(hung, hanging.port)] * 20 + [(HTTP, bad.port)] * 2 + [(HTTP, good.port)] * 20
            found = await run(*wanted)
            assert found[:20] == [Result(False, "no answer within 2 s")] * 20
            assert not any(each.is_good for each in found[20:22])
            assert found[22:] == [Result(True, "answers 200")] * 20

    trio.run(main)


def test_connection_is_seen_by_no_program_and_refused_ones_are_told():
    async def main():
        with socket.create_server(("127.0.0.1", 0)) as listening, refusing_port() as other:
            port = listening.getsockname()[1]
            async for _ in quick_tries(listening):
                pins = Pins()
                assert await run((Check("tcp"), port), (Check("tcp"), other), pins=pins) == [
                    Result(True, f"accepts connections at port {port}"),
                    Result(False, "connection refused"),
                ]
            with pytest.raises(BlockingIOError):
                listening.accept()
            assert len(set(pins.led)) == 2

    trio.run(main)


@pytest.mark.parametrize(
    ("expect", "answer", "result"),
    [
        (b"pong", b"pong 1", Result(True, "answers as expected")),
        (b"pong", b"ping", Result(False, "gives an unexpected answer")),
        (b"pong", None, Result(False, "no answer within 0.3 s")),
        (None, b"anything", Result(True, "answers")),
        (None, None, Result(True, "does not refuse datagrams")),
    ],
)
def test_datagram_is_judged_as_by_a_check_of_its_own(expect, answer, result):
    async def main():
        with trio.socket.socket(type=socket.SOCK_DGRAM) as server:
            await server.bind(("127.0.0.1", 0))

            async def act():
                data, source = await server.recvfrom(100)
                assert data == b"ping"
                if answer is not None:
                    await server.sendto(answer, source)

            check = Check("udp", send=b"ping", expect=expect, timeout=60.0 if answer else 0.3)
            assert await run((check, server.getsockname()[1]), act=act) == [result]

    trio.run(main)


def test_question_is_answered_behind_what_answers_another():
    import dns.message

    async def main():
        with trio.socket.socket(type=socket.SOCK_DGRAM) as server:
            await server.bind(("127.0.0.1", 0))

            async def act():
                data, source = await server.recvfrom(1000)
                await server.sendto(b"nonsense", source)
                await server.sendto(dns.message.make_response(dns.message.from_wire(data)).to_wire(), source)

            check = Check("dns", query="health.example.", query_type="A")
            assert await run((check, server.getsockname()[1]), act=act) == [
                Result(True, "answers A health.example. with NOERROR")
            ]

    trio.run(main)


def test_datagrams_that_are_refused_are_told():
    async def main():
        with refusing_port(socket.SOCK_DGRAM) as port:
            assert await run((Check("udp", send=b"x"), port)) == [Result(False, "connection refused")]

    trio.run(main)


def test_nothing_is_sent_before_the_flow_is_led_and_a_flow_that_is_not_says_nothing_of_the_server():
    async def main():
        error = NotAskedError("the forwarder did not answer")
        with socket.create_server(("127.0.0.1", 0)) as listening:
            port = listening.getsockname()[1]
            assert await run((HTTP, port), pins=Pins(error)) == [error]
            slow = Pins(is_slow=True)

            async def lead():
                await trio.sleep(0.02)
                listening.setblocking(False)
                with pytest.raises(BlockingIOError):
                    listening.accept()
                slow.waiting[0](None)

            assert (await run((Check("tcp"), port), pins=slow, act=lead))[0].is_good

    trio.run(main)


def test_flow_that_is_led_when_the_time_is_over_is_not_used():
    async def main():
        slow = Pins(is_slow=True)
        check = dataclasses.replace(HTTP, timeout=0.05)
        assert await run((check, 1), pins=slow, act=lambda: trio.sleep(0.2)) == [
            Result(False, "no answer within 0.05 s")
        ]
        slow.waiting[0](None)

    trio.run(main)


def test_node_without_descriptors_has_not_asked(monkeypatch):
    def refuse(*_):
        raise OSError(24, "")

    async def main():
        made = Exchanges(Pins())
        monkeypatch.setattr(socket, "socket", refuse)
        opened, found = way(Pins(), 80), []
        made.begin(opened, checks.as_exchange(Check("tcp"), opened), found.append)
        monkeypatch.undo()
        assert str(found[0]) == "too many open files"

    trio.run(main)


def test_no_descriptor_stays_open():
    async def main():
        async with Server(sending(OK)) as server, Server(silent) as hanging:
            before = len(os.listdir("/proc/self/fd"))
            await run(*[(HTTP, server.port)] * 30)
            async with trio.open_nursery() as nursery:
                made, pins = Exchanges(Pins()), Pins()
                nursery.start_soon(made.run)
                await trio.sleep(0.01)
                for _ in range(5):
                    opened = way(pins, hanging.port)
                    made.begin(opened, checks.as_exchange(HTTP, opened), lambda _: None)
                await trio.sleep(0.05)
                nursery.cancel_scope.cancel()  # the agent ends
            await trio.sleep(0.05)
            assert len(os.listdir("/proc/self/fd")) - before <= 35  # those that the server has accepted
            assert not made._running or all(each.socket.fileno() == -1 for each in made._running.values())

    trio.run(main)


def test_time_that_is_shorter_than_those_under_way_is_kept():
    async def main():
        async with Server(silent) as server:
            wanted = [dataclasses.replace(HTTP, timeout=timeout) for timeout in (60.0, 0.1)]
            began = trio.current_time()
            pins, found = Pins(), []
            async with trio.open_nursery() as nursery:
                made = Exchanges(pins)
                nursery.start_soon(made.run)
                for check in wanted:
                    await trio.sleep(0.05)
                    opened = way(pins, server.port)
                    made.begin(opened, checks.as_exchange(check, opened), found.append)
                while not found:
                    await trio.sleep(0.01)
                nursery.cancel_scope.cancel()
            assert trio.current_time() - began < 30

    trio.run(main)
