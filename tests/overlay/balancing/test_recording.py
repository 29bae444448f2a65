"""The recorded steps of a check, and bytes as text."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

import pytest
import trio

from overlay.balancing import recording
from overlay.balancing.dialer import DialedServer
from overlay.balancing.recording import RecordingDialer, describe


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "the end"),
        (b"x", "1 byte: x"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "27 bytes: GET / HTTP/1.1"),
        (b"\x16\x03\x01\x02\x00" + bytes(512), "517 bytes of TLS"),
        (b"\x00\x01\xff", "3 bytes: 0001ff"),
        (b"\n\nlate", "6 bytes: 0a0a6c617465"),
        (b"\x1b[2Jboo", "7 bytes: 1b5b324a626f6f"),
        (b"a" * 61, f"61 bytes: {'a' * 60}..."),
        (b"\xff" * 61, f"61 bytes: {'ff' * 60}..."),
        ("\u202eevil".encode(), "7 bytes: e280ae6576696c"),
    ],
)
def test_bytes_are_told_by_how_they_begin_and_move_no_cursor(data, told):
    assert describe(data) == told


class Pins:
    """Leads all flows."""

    forwarders = 0

    async def pin(self, key, target):
        pass

    def unpin(self, key):
        pass


def way(notes, port):
    from ipaddress import ip_address

    own = [ip_address("127.0.0.1")]
    service = SimpleNamespace(name="web")
    server = SimpleNamespace(name="web1", peer="web1")
    probe = SimpleNamespace(service=service, server=server, address=own[0], port=port)
    return RecordingDialer(notes.append, DialedServer(Pins(), (0, 0), own, probe))


def test_steps_of_a_connection_are_told_in_their_order():
    notes = []

    async def main():
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listeners[0].socket.getsockname()[1]

        async def serve(stream):
            # A knock that takes long is a connection, which is reset.
            with contextlib.suppress(trio.BrokenResourceError):
                await stream.receive_some()
                await stream.send_all(b"HTTP/1.1 200 OK\r\n\r\n")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, serve, listeners)
            async with await way(notes, port).connect() as stream:
                await stream.send_all(b"GET / HTTP/1.0\r\n\r\n")
                await stream.receive_some(100)
            await way(notes, port).knock()
            nursery.cancel_scope.cancel()
        return port

    port = trio.run(main)
    local = notes[2].rpartition(" ")[2]
    assert notes == [
        f"asking 127.0.0.1:{port} from 127.0.0.1",
        "the forwarder sends these packets to web1, and no others",
        f"connected from port {local}",
        "sent 18 bytes: GET / HTTP/1.0",
        "received 19 bytes: HTTP/1.1 200 OK",
        f"asking 127.0.0.1:{port} from 127.0.0.1",
        "the forwarder sends these packets to web1, and no others",
        "the server accepted the connection, which was ended at once",
    ]


def test_a_server_that_sends_without_end_does_not_fill_the_screen(monkeypatch):
    monkeypatch.setattr(recording, "MESSAGES", 3)
    notes = []
    made = way(notes, 1)
    for _ in range(100):
        made._tell("received", b"more")
    assert notes == ["received 4 bytes: more"] * 2 + ["and more"]
