import select
import socket
import time

import pytest

from overlay.cli import in_band
from overlay.cli.in_band import InBandPings, NotAbleError, Reply
from overlay.host.control import decode, encode
from tests.crowds import crowd_at
from tests.overlay.cli.fakes import ping_answer

PATIENCE = 60.0


class Agent:
    """The agent's end: each question is a stream on which the test answers whenever it wants to."""

    def __init__(self, path):
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(str(path))
        self.listener.listen(16)
        self.streams = []

    def take(self):
        """Return the next question, and the stream for its answer."""
        stream = self.listener.accept()[0]
        self.streams.append(stream)
        return decode(stream.recv(4096)), stream

    def close(self):
        for stream in (self.listener, *self.streams):
            stream.close()


@pytest.fixture
def agent(tmp_path):
    agent = Agent(tmp_path / "overlay0.sock")
    yield agent
    agent.close()


@pytest.fixture
def pings(tmp_path, agent):
    pings = InBandPings(tmp_path / "overlay0.sock", "tokyo", 2.0, time.sleep)
    yield pings
    pings.close()


def test_answers_are_distinguished_in_any_order(pings, agent):
    streams = []
    for sequence in (1, 2):
        pings.send(sequence)
        question, stream = agent.take()
        assert question == {"op": "ping", "name": "tokyo", "timeout": 2.0}
        streams.append(stream)

    streams[1].sendall(encode(ping_answer(0.5)))
    assert pings.receive(PATIENCE) == Reply(2, 0.5)
    streams[0].sendall(encode(ping_answer(None)))
    assert pings.receive(PATIENCE) == Reply(1, None)


def test_an_answer_may_come_in_pieces(pings, agent):
    pings.send(1)
    _, stream = agent.take()
    line = encode(ping_answer(0.25))

    stream.sendall(line[:9])
    assert pings.receive(PATIENCE) is None
    stream.sendall(line[9:])
    assert pings.receive(PATIENCE) == Reply(1, 0.25)


def test_silence_ends_with_the_timeout(pings):
    pings.send(1)

    assert pings.receive(0.001) is None


def test_with_nothing_asked_the_time_passes(agent, tmp_path):
    slept = []
    pings = InBandPings(tmp_path / "overlay0.sock", "tokyo", 2.0, slept.append)

    assert pings.receive(1.5) is None
    assert slept == [1.5]


@pytest.mark.parametrize(
    "line",
    [
        encode(ping_answer(None, is_possible=False)),
        encode({"ok": False, "error": "no", "ping": {"is_possible": True}}),
        b"\xff\n",
        b"",
        b"x" * 5000,
    ],
    ids=["not able", "refused", "garbage", "end", "long"],
)
def test_anything_but_an_answer_means_that_none_will_come(pings, agent, line):
    pings.send(1)
    _, stream = agent.take()
    stream.sendall(line)
    stream.close()

    with pytest.raises(NotAbleError):
        all(pings.receive(PATIENCE) is None for _ in range(10))  # it may come in pieces


def test_without_an_agent_there_are_none(tmp_path):
    pings = InBandPings(tmp_path / "nosuch.sock", "tokyo", 2.0, time.sleep)

    with pytest.raises(NotAbleError):
        pings.send(1)
    pings.close()


def test_ping_that_a_busy_agent_has_no_time_to_take_is_lost_alone(pings, agent, tmp_path, monkeypatch):
    monkeypatch.setattr(in_band, "SEND_TIMEOUT", 0.05)
    with crowd_at(tmp_path / "overlay0.sock"):
        pings.send(1)
        assert pings.receive(0.001) is None

    while select.select([agent.listener], [], [], 0)[0]:
        agent.listener.accept()[0].close()
    pings.send(2)
    agent.take()[1].sendall(encode(ping_answer(0.5)))
    assert pings.receive(PATIENCE) == Reply(2, 0.5)


def test_closed_all_connections_end(pings, agent):
    pings.send(1)
    _, stream = agent.take()

    pings.close()

    assert stream.recv(1) == b""
