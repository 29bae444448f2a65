from __future__ import annotations

import json
import os
import resource
import socket
import struct

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from overlay import questions
from overlay.doors import accepting
from overlay.questions import REQUEST_BYTES, REQUEST_TIMEOUT, refusal


class Site:
    """A control socket with something that answers, and a record of its questions."""

    def __init__(self, path):
        self.path = str(path)
        self.asked = []
        self.answered = []
        self.passed = []  # the contents of the descriptors that came with each question
        self.answer, self.rows = {"ok": True}, []
        self.most = questions.CONVERSATIONS
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self.listener.bind(self.path)
        self.listener.listen(16)

    async def serve(self):
        await questions.serve(self.listener, self._answer, self._answered, self.most)

    async def _answer(self, request, tell_rows):
        self.asked.append(request)
        self.passed.append([os.fstat(each).st_ino for each in request.descriptors])
        for rows in self.rows:
            await tell_rows(rows)
        return self.answer

    def _answered(self, request, reply):
        self.answered.append((request, reply))

    async def connect(self):
        return await trio.open_unix_socket(self.path)

    async def ask(self, *pieces):
        """Send *pieces*, then return what comes back until the end."""
        stream = await self.connect()
        async with stream:
            for piece in pieces:
                await stream.send_all(piece)
                await trio.sleep(0.01)
            return b"".join([chunk async for chunk in stream])


@pytest.fixture
def at_site(tmp_path):
    """Return a runner of ``async def story(site)`` beside a server, in simulated time."""

    def run(story):
        async def main():
            site = Site(tmp_path / f"{os.urandom(4).hex()}.sock")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(site.serve)
                await story(site)
                nursery.cancel_scope.cancel()
            site.listener.close()

        trio.run(main, clock=MockClock(autojump_threshold=0.01), strict_exception_groups=True)

    return run


def test_question_gets_its_answer_on_one_line(at_site):
    async def story(site):
        site.answer = {"ok": True, "peers": ["é"]}

        line = await site.ask(b'{"op": "status"}\n')

        assert site.asked == [{"op": "status"}]
        assert line.count(b"\n") == 1
        assert json.loads(line) == site.answer

    at_site(story)


def test_question_may_come_in_pieces(at_site):
    async def story(site):
        await site.ask(b'{"op"', b': "sta', b'tus"}', b"\n")

        assert site.asked == [{"op": "status"}]

    at_site(story)


def test_answer_larger_than_a_socket_buffer_arrives_whole(at_site):
    async def story(site):
        site.answer = {"ok": True, "text": "x" * 5_000_000}

        assert json.loads(await site.ask(b"{}\n")) == site.answer

    at_site(story)


def test_rows_come_in_lines_before_the_answer(at_site):
    async def story(site):
        site.rows = [[{"name": "tokyo"}, {"name": "rome"}], [{"name": "oslo"}]]

        lines = [json.loads(line) for line in (await site.ask(b"{}\n")).splitlines()]

        assert lines == [*({"rows": rows, "more": True} for rows in site.rows), {"ok": True}]

    at_site(story)


@pytest.mark.slow
def test_an_answer_of_any_length_is_waited_for_as_long_as_it_is_read(at_site):
    async def story(site):
        site.rows = [[{"name": "x" * 1_000_000}]] * 20
        stream = await site.connect()
        await stream.send_all(b"{}\n")
        lines = 0

        async with stream:
            async for chunk in stream:
                lines += chunk.count(b"\n")
                await trio.sleep(0.5 * REQUEST_TIMEOUT / 20)

        assert lines == 21

    at_site(story)


def test_who_does_not_read_the_rows_is_left_and_others_are_answered(at_site):
    async def story(site):
        site.rows = [[{"name": "x" * 1_000_000}]] * 20
        stream = await site.connect()
        await stream.send_all(b"{}\n")
        await trio.sleep(2 * REQUEST_TIMEOUT)

        async with stream:
            received = b"".join([chunk async for chunk in stream])
        site.rows = []

        assert received.count(b"\n") < 20
        assert json.loads(await site.ask(b"{}\n")) == {"ok": True}
        assert len(site.answered) == 1

    at_site(story)


def test_who_goes_away_among_the_rows_is_no_error(at_site):
    async def story(site):
        site.rows = [[{"name": "x" * 1_000_000}]] * 20
        stream = await site.connect()
        await stream.send_all(b"{}\n")
        await stream.receive_some(10)
        await stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        site.rows = []

        assert json.loads(await site.ask(b"{}\n")) == {"ok": True}

    at_site(story)


def test_it_is_told_when_the_answer_has_left(at_site):
    async def story(site):
        await site.ask(b'{"op": "down"}\n')
        await trio.testing.wait_all_tasks_blocked()

        assert site.answered == [({"op": "down"}, {"ok": True})]

    at_site(story)


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"[]\n",
        b"nonsense\n",
        b'{"op": "status"}{}\n',
        b'{"op": "status"}\n{}\n{}',
        b"\xff\xfe\n",
        b"[" * 60_000 + b"\n",
        b"9" * 60_000 + b"\n",
        b"x" * (REQUEST_BYTES + 1),
    ],
)
def test_what_is_no_question_is_refused_and_not_asked(at_site, line):
    async def story(site):
        reply = json.loads(await site.ask(line))

        assert reply == {"ok": False, "kind": "failed", "error": "the request is not one line of JSON"}
        assert site.asked == []

    at_site(story)


@given(st.lists(st.binary(min_size=1, max_size=100), max_size=4))
def test_any_bytes_get_an_answer_and_the_next_question_too(tmp_path_factory, pieces):
    async def main():
        site = Site(tmp_path_factory.mktemp("run") / "s")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(site.serve)
            for garbage in pieces:
                stream = await site.connect()
                async with stream:
                    await stream.send_all(garbage)
                    await stream.send_eof()
                    assert json.loads(b"".join([chunk async for chunk in stream]))["ok"] in {True, False}
            assert json.loads(await site.ask(b"{}\n")) == {"ok": True}
            nursery.cancel_scope.cancel()
        site.listener.close()

    trio.run(main, clock=MockClock(autojump_threshold=0.01), strict_exception_groups=True)


def test_client_that_leaves_at_once_disturbs_nobody(at_site):
    async def story(site):
        for _ in range(3):
            stream = await site.connect()
            await stream.aclose()
        abrupt = await site.connect()
        linger = struct.pack("ii", 1, 0)
        abrupt.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        await abrupt.send_all(b'{"op": "half')
        await abrupt.aclose()

        assert json.loads(await site.ask(b"{}\n")) == {"ok": True}

    at_site(story)


def test_client_that_does_not_wait_for_its_answer_is_answered_all_the_same(at_site):
    async def story(site):
        site.answer = {"ok": True, "text": "x" * 5_000_000}
        stream = await site.connect()
        await stream.send_all(b'{"op": "down"}\n')
        await stream.aclose()
        await trio.sleep(1)

        assert [request for request, _ in site.answered] == [{"op": "down"}]

    at_site(story)


def test_client_that_asks_nothing_is_sent_away_after_five_seconds(at_site):
    async def story(site):
        began = trio.current_time()

        reply = json.loads(await site.ask())

        assert trio.current_time() - began == pytest.approx(REQUEST_TIMEOUT, abs=0.1)
        assert reply["ok"] is False

    at_site(story)


def test_client_that_does_not_read_its_answer_is_let_go_after_five_seconds(at_site):
    async def story(site):
        site.answer = {"ok": True, "text": "x" * 5_000_000}
        stream = await site.connect()
        await stream.send_all(b"{}\n")
        await trio.sleep(REQUEST_TIMEOUT + 1)

        assert len(site.answered) == 1
        await stream.aclose()

    at_site(story)


def test_slow_client_holds_nobody_up(at_site):
    async def story(site):
        slow = await site.connect()
        began = trio.current_time()

        assert json.loads(await site.ask(b"{}\n")) == {"ok": True}

        assert trio.current_time() - began < 1
        await slow.aclose()

    at_site(story)


def test_clients_that_ask_nothing_take_a_bounded_number_of_descriptors_and_then_make_way(at_site):
    async def story(site):
        site.most = 3
        await trio.testing.wait_all_tasks_blocked()
        before = len(os.listdir("/proc/self/fd"))
        idle = [await site.connect() for _ in range(8)]
        await trio.testing.wait_all_tasks_blocked()

        assert len(os.listdir("/proc/self/fd")) - before - len(idle) == 3
        assert json.loads(await site.ask(b"{}\n")) == {"ok": True}
        for stream in idle:
            await stream.aclose()

    at_site(story)


@pytest.mark.slow
def test_without_a_free_descriptor_questions_wait_and_one_line_says_so(at_site, caplog):
    async def story(site):
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        async with await site.connect() as stream:
            await stream.send_all(b"{}\n")
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
            try:
                await trio.sleep(accepting.EXHAUSTED_INTERVAL / 2)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)

            assert json.loads(b"".join([chunk async for chunk in stream])) == {"ok": True}

    at_site(story)

    assert [(record.getMessage(), record.exc_info) for record in caplog.records] == [
        ("questions to this agent wait until they can be accepted: Too many open files", None)
    ]


def test_listener_of_the_agent_stays_open_for_it_to_close(at_site):
    async def story(site):
        await site.ask(b"{}\n")

        assert site.listener.fileno() != -1

    at_site(story)


def test_refusal_names_its_kind():
    assert refusal("no", "unknown_peer") == {"ok": False, "kind": "unknown_peer", "error": "no"}


def test_descriptors_come_with_a_question_and_are_closed_with_the_answer(at_site):
    async def story(site):
        await site.ask(b"{}\n")
        before = os.listdir("/proc/self/fd")
        ends = [os.pipe() for _ in range(2)]
        sent = [os.fstat(reader).st_ino for reader, _ in ends]
        async with await site.connect() as stream:
            rights = struct.pack("2i", *(reader for reader, _ in ends))
            await stream.socket.sendmsg([b'{"op": "x"}\n'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
            assert await stream.receive_some() == b'{"ok":true}\n'
        for end in (*ends[0], *ends[1]):
            os.close(end)
        await trio.sleep(1)

        assert site.passed[-1] == sent
        assert len(os.listdir("/proc/self/fd")) <= len(before)

    at_site(story)


@pytest.mark.parametrize("line", [b"garbage\n", b'{"op": "x"}\n', b'{"op"'])
def test_descriptors_that_nobody_asked_for_are_closed_and_only_so_many_are_taken(at_site, line):
    async def story(site):
        await site.ask(b"{}\n")
        before = len(os.listdir("/proc/self/fd"))
        reader, writer = os.pipe()
        async with await site.connect() as stream:
            rights = struct.pack("20i", *[reader] * 20)
            await stream.socket.sendmsg([line], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
            await stream.send_eof()
            await stream.receive_some()
        os.close(reader)
        os.close(writer)
        await trio.sleep(1)

        assert all(len(request.descriptors) <= questions.DESCRIPTORS for request in site.asked)
        assert len(os.listdir("/proc/self/fd")) <= before

    at_site(story)
