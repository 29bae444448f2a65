"""A server of HTTP, and clients of every kind."""

from __future__ import annotations

import contextlib

import pytest
import trio
from trio.testing import MockClock

from overlay.doors import http

GET = b"GET /metrics?name=a%20b HTTP/1.1\r\nHost: a\r\n\r\n"


async def echo(request):
    if (refused := http.refuse_method(request, "GET", "HEAD")) is not None:
        return refused
    return http.Reply(200, repr((request.path, request.query, request.headers.get("host"))).encode())


class Site:
    """A server at a unix socket."""

    def __init__(self, path):
        self.path = str(path)

    def connect(self):
        return trio.open_unix_socket(self.path)

    async def talk(self, *pieces, ends=True):
        """Send pieces one after the other; return the answers until the other end has no more to send."""
        received = bytearray()
        async with await self.connect() as stream:
            with trio.fail_after(60), contextlib.suppress(trio.BrokenResourceError):
                for piece in pieces:
                    await stream.send_all(piece)
                    await trio.sleep(0.01)
                if ends:
                    await stream.send_eof()
                async for chunk in stream:
                    received += chunk
        return bytes(received)


@pytest.fixture
def at_site(tmp_path):
    """Run a story at a server, which must still answer afterwards, in simulated time."""

    def run(story, answer=echo, limits=None):
        async def main():
            listener = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
            await listener.bind(str(tmp_path / "s.sock"))
            listener.listen(50)
            site = Site(tmp_path / "s.sock")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(http.serve, trio.SocketListener(listener), answer, limits)
                told = await story(site)
                assert (await site.talk(GET)).startswith(b"HTTP/1.1 200")
                nursery.cancel_scope.cancel()
            return told

        try:
            return trio.run(main, clock=MockClock(autojump_threshold=0.01))
        finally:
            (tmp_path / "s.sock").unlink()

    return run


@pytest.fixture
def talk(at_site):
    def talk(*pieces, ends=True, **options):
        return at_site(lambda site: site.talk(*pieces, ends=ends), **options)

    return talk


def test_request_is_read_with_its_path_query_and_headers(talk):
    said = talk(GET)

    assert said.endswith(b"\r\n\r\n('/metrics', [('name', 'a b')], 'a')")
    assert b"Content-Type: text/plain; charset=utf-8\r\n" in said


def test_requests_follow_each_other_on_one_connection_in_any_pieces(talk):
    data = GET * 3

    assert talk(data).count(b"HTTP/1.1 200") == 3
    assert talk(*(data[at : at + 11] for at in range(0, len(data), 11))).count(b"HTTP/1.1 200") == 3


def test_head_has_the_length_and_no_body(talk):
    head, _, body = talk(GET.replace(b"GET", b"HEAD")).partition(b"\r\n\r\n")

    size = len(talk(GET).partition(b"\r\n\r\n")[2])
    assert (b"Content-Length: %d" % size in head, body) == (True, b"")


def test_other_method_is_refused_with_those_that_there_are(talk):
    said = talk(GET.replace(b"GET", b"DELETE"))

    assert said.startswith(b"HTTP/1.1 405")
    assert b"Allow: GET, HEAD\r\n" in said
    assert said.endswith(b"/metrics allows GET and HEAD\n")


def test_target_as_a_proxy_is_told_it_is_understood(talk):
    assert b"('/metrics'," in talk(GET.replace(b" /", b" http://paris:9586/"))


async def in_pieces(_request):
    async def pieces():
        for number in range(3):
            yield f"piece {number}\n".encode()

    return http.Reply(200, pieces())


def test_body_in_pieces_is_sent_in_chunks_and_to_http_1_0_until_the_end(talk):
    assert b"7\r\npiece 1" not in talk(GET, answer=in_pieces)  # its size is in hex, with the line's end
    assert b"8\r\npiece 1\n\r\n" in talk(GET, answer=in_pieces)
    assert talk(b"GET / HTTP/1.0\r\n\r\n", answer=in_pieces).endswith(b"\r\n\r\npiece 0\npiece 1\npiece 2\n")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", b"400"),  # no host
        (b"\x16\x03\x01\x02\x00\x01\x00", b""),
        (b"x" * 100_000, b"4"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 100_000, b"4"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx", b"413"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n", b"413"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n", b""),
        (b"GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n", b"400"),
        (b"", b""),
    ],
    ids=["host", "tls", "line", "header", "body", "chunked", "smuggled", "nul", "nothing"],
)  # fmt: skip
def test_what_is_no_request_is_refused_and_the_next_is_answered(talk, data, status):
    assert talk(data)[9 : 9 + len(status)] == status


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", b"Missing mandatory Host: header: send a request of HTTP/1.1\n"),
        (b"GET / HTTP/1.1\r\nno header\r\n\r\n", b"illegal header line: send a request of HTTP/1.1\n"),
        (
            b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n" + bytes(9),
            b"the body is longer than 0 bytes: send a shorter one\n",
        ),
    ],
)
def test_refusal_of_what_is_no_request_is_a_sentence_that_quotes_nothing(talk, data, said):
    assert talk(data).partition(b"\r\n\r\n")[2] == said


def test_connection_of_who_says_nothing_or_never_ends_its_request_is_closed(talk):
    limits = http.Limits(idle=0.3, request=0.3, body_size=10)

    assert talk(ends=False, limits=limits) == b""
    assert talk(b"GET / HTTP/1.1\r\n", ends=False, limits=limits) == b""
    assert talk(b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n{", ends=False, limits=limits) == b""


def test_answer_that_takes_too_long_is_cancelled(talk):
    ended = []

    async def never(request):
        if request.path != "/slow":
            return http.say(200, "well")
        try:
            await trio.sleep_forever()
        finally:
            ended.append(request.path)

    assert (
        talk(GET.replace(b"/metrics", b"/slow"), ends=False, answer=never, limits=http.Limits(answer=0.3))
        == b""
    )
    assert ended == ["/slow"]


def test_client_that_does_not_read_ends_a_long_answer(at_site):
    closed = trio.Event()

    async def endless(request):
        async def pieces():
            try:
                while True:
                    yield bytes(100_000)
            finally:
                closed.set()

        return http.say(200, "well") if request.path != "/long" else http.Reply(200, pieces())

    async def story(site):
        async with await site.connect() as stream:
            await stream.send_all(GET.replace(b"/metrics", b"/long"))
            with trio.fail_after(60):
                await closed.wait()

    at_site(story, endless, http.Limits(answer=0.3))


def test_idle_connections_make_room_for_a_client_with_a_request(at_site):
    async def story(site):
        idle = [await site.connect() for _ in range(20)]
        with trio.fail_after(60):
            said = await site.talk(GET)
        for stream in idle:
            await stream.aclose()
        return said

    assert at_site(story, limits=http.Limits(connections=4, idle=1000.0)).startswith(b"HTTP/1.1 200")


def test_more_clients_than_connections_are_all_answered(at_site):
    async def story(site):
        said = []

        async def ask():
            said.append(await site.talk(GET))

        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for _ in range(40):
                    nursery.start_soon(ask)
        return said

    assert all(each.startswith(b"HTTP/1.1 200") for each in at_site(story, limits=http.Limits(connections=2)))


def test_clients_that_send_no_body_or_read_no_answer_make_room_where_others_wait(at_site, monkeypatch):
    monkeypatch.setattr(http, "CROWDED", 0.05)

    async def large(request):
        return http.Reply(200, b"a" * (4 << 20 if request.path == "/large" else 1))

    async def story(site):
        async with contextlib.AsyncExitStack() as stack:
            for each in (
                b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n",
                GET.replace(b"/metrics", b"/large"),
            ):
                for _ in range(2):
                    stream = await stack.enter_async_context(await site.connect())
                    await stream.send_all(each)
            await trio.sleep(0.01)
            return await site.talk(GET)

    limits = http.Limits(connections=4, body_size=10, idle=1000.0, request=1000.0, answer=1000.0)
    assert at_site(story, large, limits).startswith(b"HTTP/1.1 200")


def test_slow_clients_have_their_time_where_nobody_waits(at_site, monkeypatch):
    monkeypatch.setattr(http, "CROWDED", 0.0)

    async def story(site):
        async with await site.connect() as stream:
            await stream.send_all(
                b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nConnection: close\r\n\r\n"
            )
            await trio.sleep(0.05)
            await stream.send_all(b"a")
            return b"".join([chunk async for chunk in stream])

    assert at_site(story, limits=http.Limits(connections=4, body_size=10)).startswith(b"HTTP/1.1 200")
