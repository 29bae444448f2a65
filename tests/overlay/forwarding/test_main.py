"""The forwarder's main() in a fork of this process; tests/overlay/supervision/test_forwarder.py starts it as the
agent does.
"""

from __future__ import annotations

import array
import contextlib
import os
import signal
import socket
import sys
import traceback
from pathlib import Path

import msgpack
import pytest

from overlay.crypto.keys import PrivateKey
from overlay.forwarding.__main__ import main
from overlay.host.process.user_ids import USER_IDS
from overlay.link.codec import MESSAGE_BYTES, MESSAGES, VERSION, decode, encode
from overlay.link.messages import AskCounters, Begin, Counters, Handled, Ready, Start
from overlay.session.constants import Timing
from tests.overlay.host.process.test_seccomp import needs_filter

PATIENCE = 60.0  # seconds; a forwarder needs far less, and a test that waits so long has failed
TIMES = [float(getattr(Timing(), name)) for name in Timing.__slots__]
START = Start(PrivateKey(bytes(range(32))).public, 1420, True, True, TIMES)
ANOTHER_VERSION = msgpack.packb([MESSAGES.index(Start), VERSION + 1, {"another": "layout"}])
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to have something to drop")


def fork(work):
    """Return a process that only does *work*."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        work()
        status = 0
    except BaseException:  # noqa: BLE001  it cannot leave a fork
        traceback.print_exc()
    finally:
        os._exit(status)


class Agent:
    """The other end of the link of a forwarder, and something in the place of its tun, from
    which nothing ever comes.
    """

    def __init__(self):
        self.link, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.link.settimeout(PATIENCE)
        self.tun = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def run(self):
        """Run as a forwarder."""
        self.link.close()
        sys.argv = ["forwarder", str(self.theirs.fileno()), str(USER_IDS[0])]
        main()

    def start(self):
        self.pid = fork(self.run)

    def close(self):
        for each in (self.link, self.theirs, *self.tun):
            each.close()

    def send(self, data, *descriptors):
        ancillary = (
            [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        )
        self.link.sendmsg([data if isinstance(data, bytes) else encode(data)], ancillary)

    def hear(self):
        return decode(self.link.recv(MESSAGE_BYTES))

    def get_ready(self):
        """Start the forwarder and return its notes."""
        self.start()
        self.send(START, self.tun[1].fileno())
        self.send(Begin())
        ready = self.hear()
        assert isinstance(ready, Ready)
        return ready.notes

    def status(self):
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}

    def end(self):
        """Return the exit code of a forwarder that ends by itself."""
        _, status = os.waitpid(self.pid, 0)
        self.pid = None
        return os.waitstatus_to_exitcode(status)


@pytest.fixture
def agent():
    made = Agent()
    made.pid = None
    yield made
    made.close()
    if made.pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(made.pid, signal.SIGKILL)
        os.waitpid(made.pid, 0)


def test_a_forwarder_is_ready_once_it_was_told_all_and_ends_with_the_link(agent):
    agent.get_ready()

    agent.send(AskCounters(7))
    counters = agent.hear()
    assert isinstance(counters, Counters)
    assert (counters.serial, counters.drops) == (7, {})

    agent.link.shutdown(socket.SHUT_RDWR)
    assert agent.end() == 0


@needs_root
@needs_filter
def test_a_forwarder_of_root_notes_nothing_for_it_has_given_up_all(agent):
    assert agent.get_ready() == []

    status = agent.status()
    assert status["Uid"].split() == status["Gid"].split() == [str(USER_IDS[0])] * 4
    assert (int(status["CapEff"], 16), status["NoNewPrivs"], status["Seccomp"]) == (0, "1", "2")


def test_signals_for_all_processes_of_a_terminal_or_a_service_are_ignored(agent):
    agent.get_ready()

    ignored = int(agent.status()["SigIgn"], 16)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        assert ignored & 1 << number - 1


def test_a_forwarder_waits_for_nothing_in_the_middle_of_its_work(agent):
    agent.get_ready()

    assert not os.get_blocking(agent.theirs.fileno())


def test_a_forwarder_dies_with_the_process_that_started_it(agent):
    reading, writing = os.pipe()

    def start():
        os.write(writing, str(fork(agent.run)).encode())
        signal.pause()

    agent.pid = fork(start)
    assert os.read(reading, 20)
    for each in (reading, writing):
        os.close(each)
    agent.send(START, agent.tun[1].fileno())
    agent.send(Begin())
    agent.hear()

    agent.theirs.close()
    os.kill(agent.pid, signal.SIGKILL)

    assert agent.link.recv(MESSAGE_BYTES) == b"", "the other end is closed"


@pytest.mark.parametrize(
    "first", [b"garbage", encode(Handled(1)), None], ids=["garbage", "another message", "nothing"]
)
def test_a_forwarder_that_is_not_told_to_start_first_ends(agent, first):
    agent.start()

    if first is None:
        agent.link.shutdown(socket.SHUT_RDWR)
    else:
        agent.send(first)

    assert agent.end() == 0


def test_an_agent_of_another_version_is_told_ours_and_leaves_nothing_open_here(agent):
    agent.start()
    reading, writing = os.pipe()
    agent.send(ANOTHER_VERSION)
    assert msgpack.unpackb(agent.link.recv(MESSAGE_BYTES)) == [
        MESSAGES.index(Ready),
        VERSION,
        [],
        False,
        1,
        "",
    ]

    agent.send(b"garbage")
    agent.send(Handled(1), writing)
    os.close(writing)
    assert os.read(reading, 1) == b""
    os.close(reading)

    agent.link.shutdown(socket.SHUT_RDWR)
    assert agent.end() == 0
