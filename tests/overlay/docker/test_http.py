"""HTTP as dockerd speaks it, and as no client should."""

from __future__ import annotations

import contextlib

import pytest
import trio
from trio.testing import MockClock

from overlay.docker import http

# As dockerd 20.10 writes them
ACTIVATE = (
    b"POST /Plugin.Activate HTTP/1.1\r\nHost: \r\nUser-Agent: Go-http-client/1.1\r\nContent-Length: 0\r\n"
    b"Accept: application/vnd.docker.plugins.v1.2+json\r\n\r\n"
)


def chunked(body):
    return (
        b"POST /NetworkDriver.Leave HTTP/1.1\r\nHost: \r\nTransfer-Encoding: chunked\r\n\r\n"
        + f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"
    )  # fmt: skip


async def echo(path, body):
    return (404, {"Err": "no"}) if path == "/no" else (200, {"path": path, "body": body})


@pytest.fixture
def talk(tmp_path):
    """Send pieces one after the other; return the answers until the other end has no more to send."""

    def talk(*pieces, answer=echo, ends=True):
        async def main():
            listener = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
            await listener.bind(str(tmp_path / "s.sock"))
            listener.listen(5)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(http.serve, trio.SocketListener(listener), answer)
                received = bytearray()
                async with await trio.open_unix_socket(str(tmp_path / "s.sock")) as stream:
                    with trio.fail_after(60), contextlib.suppress(trio.BrokenResourceError):
                        for piece in pieces:
                            await stream.send_all(piece)
                            await trio.sleep(0.01)
                        if ends:
                            await stream.send_eof()
                        async for chunk in stream:
                            received += chunk
                # It continues to serve, whatever arrived.
                async with await trio.open_unix_socket(str(tmp_path / "s.sock")) as other:
                    await other.send_all(ACTIVATE)
                    assert (await other.receive_some(4096)).startswith(b"HTTP/1.1 200")
                nursery.cancel_scope.cancel()
            return bytes(received)

        try:
            return trio.run(main, clock=MockClock(autojump_threshold=0.01))
        finally:
            (tmp_path / "s.sock").unlink()

    return talk


def test_call_of_dockerd_is_answered(talk):
    said = talk(ACTIVATE)

    assert said.startswith(b"HTTP/1.1 200 \r\n")
    assert b"Content-Type: application/vnd.docker.plugins.v1.2+json\r\n" in said
    assert said.endswith(b'{"path": "/Plugin.Activate", "body": {}}')


def test_calls_follow_each_other_on_one_connection_in_any_pieces(talk):
    data = ACTIVATE + chunked(b'{"NetworkID": "1"}')

    assert talk(data).count(b"HTTP/1.1 200") == 2
    assert talk(*(data[at : at + 7] for at in range(0, len(data), 7))).count(b"HTTP/1.1 200") == 2
    assert b'"body": {"NetworkID": "1"}' in talk(data)


def test_status_of_an_answer_is_told(talk):
    assert talk(ACTIVATE.replace(b"/Plugin.Activate", b"/no")).startswith(b"HTTP/1.1 404")


def test_who_waits_to_be_asked_for_the_body_is_asked(talk):
    said = talk(b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n", b"{}")

    assert said.startswith(b"HTTP/1.1 100")
    assert b"HTTP/1.1 200" in said


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"405"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n[", b"400"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n[]", b"400"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n" + b"[" * 200_000, b"400"),
        (b"POST / HTTP/1.1\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00\x01\x00", b""),
        (b"x" * 100_000, b"4"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 100_000, b"4"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n" + b"x" * (http.LIMITS.body_size + 70_000), b"413"),
    ],
    ids=["get", "json", "list", "nested", "host", "tls", "line", "header", "body"],
)  # fmt: skip
def test_what_is_no_call_is_refused_and_the_next_is_answered(talk, data, status):
    said = talk(data)

    assert said[9 : 9 + len(status)] == status
