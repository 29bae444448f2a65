"""What the process that talks to browsers can ask of the agent, and what it cannot, even under an
attacker's control.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import threading

import pytest
import trio

from overlay.doors import readonly
from overlay.doors.readonly import RelayClient, UnansweredError, is_harmless
from overlay.host import control
from tests.crowds import crowd_at, first_line
from tests.overlay.doors.site import ENDING, Agent, agent_at


@pytest.fixture
def path(tmp_path):
    return tmp_path / "web0.sock"


@pytest.fixture
def link(path):
    """Return the end of a link whose other end relays to the agent at *path*."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    relaying = threading.Thread(target=readonly.relay, args=(theirs, lambda: path))
    relaying.start()
    with ours:
        ours.settimeout(ENDING)
        yield ours
    relaying.join(ENDING)
    assert not relaying.is_alive()
    theirs.close()


def ask(link, *questions):
    async def main():
        reader, told = RelayClient(link), []

        async def one(question):
            told.append(await reader.ask(question))

        async with trio.open_nursery() as nursery:
            for question in questions:
                nursery.start_soon(one, question)
        return told

    try:
        return trio.run(main, strict_exception_groups=True)
    finally:
        link.setblocking(True)


@pytest.mark.parametrize(
    "question",
    [
        {"op": "status"},
        {"op": "history", "name": "tokyo", "samples": 60},
        {"op": "events", "since": 3, "limit": 10, "name": "10.244.2.1"},
        {"op": "services"},
        {"op": "doctor"},
    ],
)
def test_questions_of_the_page_are_harmless(question):
    assert is_harmless(question)


@pytest.mark.parametrize(
    "question",
    [
        {"op": "down"},
        {"op": "set_server", "name": "web/web1"},
        {"op": "ping", "name": "tokyo", "timeout": 1},
        {"op": "attach"},
        {"op": "status", "name": "tokyo"},
        {"op": "history", "samples": True},
        {"op": "history", "name": 7},
        {"op": "history", "name": "x" * 254},
        {"op": ["status"]},
        {"op": None},
        {},
        [],
        "status",
        None,
    ],
)
def test_no_other_question_is(question):
    assert not is_harmless(question)


def test_an_answer_comes_with_its_rows(path, link):
    with agent_at(path, Agent(45)):
        ((answer, rows),) = ask(link, {"op": "status"})

    assert answer["status"]["node"] == "paris"
    assert [row["name"] for row in rows] == [f"peer{number}" for number in range(45)]


def test_answers_to_questions_at_once_are_not_mixed_up(path, link):
    with agent_at(path, Agent(30)):
        told = ask(link, *({"op": "history", "name": f"peer{number}", "samples": 9} for number in range(30)))

    assert sorted(rows[0]["name"] for _, rows in told) == sorted(f"peer{number}" for number in range(30))


@pytest.mark.parametrize(
    "data", [b'{"op":"down"}', b"{", b"[" * 3000, b'{"op":"status"}\n{"op":"down"}', b"\xff", b"null"]
)
def test_what_is_not_harmless_never_reaches_the_agent(path, link, data):
    agent = Agent()
    with agent_at(path, agent):
        link.send(data)
        said, descriptors, *_ = socket.recv_fds(link, 4096, 4)

    assert json.loads(said)["error"] == "that is not a question that the page may ask"
    assert (descriptors, agent.asked) == ([], [])


def test_a_connection_that_is_handed_over_takes_no_second_question(path, link):
    agent = Agent(1)
    with agent_at(path, agent):
        link.send(control.encode({"op": "status"}))
        _, (descriptor,), *_ = socket.recv_fds(link, 4096, 4)
        with socket.socket(fileno=descriptor) as connection, pytest.raises(BrokenPipeError):
            connection.send(control.encode({"op": "down"}))

    assert agent.asked in ([{"op": "status"}], [])


def test_without_an_agent_that_is_said_and_one_that_starts_later_answers(path, link):
    with pytest.raises(ExceptionGroup) as caught:
        ask(link, {"op": "status"})
    assert caught.group_contains(UnansweredError, match="no overlay agent runs for web0 here")

    with agent_at(path, Agent(1)):
        assert ask(link, {"op": "status"})


def test_a_question_waits_its_turn_where_so_many_ask_that_the_queue_is_full(path, link):
    question = control.encode({"op": "status"})
    with contextlib.closing(control.listen(path)) as opened:
        with crowd_at(path):
            link.send(question)
            assert select.select([link], [], [], 0.2)[0] == []  # it was refused immediately

        assert first_line(opened.socket) == question
        assert socket.recv_fds(link, 4096, 4)[0] == b"{}"


def test_an_agent_with_no_time_for_a_question_is_said(path, link, monkeypatch):
    monkeypatch.setattr(readonly, "CONNECT_TIME", 0.05)
    with (
        contextlib.closing(control.listen(path)),
        crowd_at(path),
        pytest.raises(ExceptionGroup) as caught,
    ):
        ask(link, {"op": "status"})

    assert caught.group_contains(
        UnansweredError, match="the agent of web0 could not be asked: it is too busy"
    )


def test_a_refusal_of_the_agent_is_told_with_its_kind(path, link):
    agent = Agent()
    agent.refused["doctor"] = {"ok": False, "kind": "busy", "error": "two examine already"}
    with agent_at(path, agent), pytest.raises(ExceptionGroup) as caught:
        ask(link, {"op": "doctor"})

    (error,) = caught.value.exceptions
    assert (error.kind, str(error)) == ("busy", "two examine already")


@pytest.mark.parametrize("questions", [1, 50])
def test_a_process_that_ends_before_it_has_read_its_answer_is_no_error(path, questions):
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for _ in range(questions):
        ours.send(control.encode({"op": "status"}))

    def end():
        if select.select([ours], [], [], ENDING)[0]:  # an answer is there, and is not read
            ours.close()

    ending = threading.Thread(target=end)
    ending.start()
    with theirs:
        readonly.relay(theirs, lambda: path)
    ending.join(ENDING)
    assert ours.fileno() == -1
