"""overlay top, the command; test_app has the screen."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time

import pytest

from overlay.cli.top import _has_bars
from tests.overlay.cli.fakes import STATUS, peer_status
from tests.overlay.cli.test_main import ROOT


def test_elsewhere_than_in_a_terminal_there_is_a_sentence(overlay):
    result = overlay("top")

    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (1, "", 1)
    assert "overlay top needs a terminal" in result.stderr


@pytest.mark.parametrize(
    ("encoding", "has"), [("utf-8", True), ("ascii", False), ("latin-1", False), (None, False), ("x", False)]
)
def test_bars_are_drawn_where_the_terminal_has_them(encoding, has):
    assert _has_bars(encoding) is has


PROGRAM = """
import sys
from pathlib import Path
from overlay.cli import main
from overlay.cli.surroundings import Surroundings
main(["top"], obj=Surroundings(Path(sys.argv[1]), count_guards=lambda _: 0))
"""


@pytest.fixture
def terminal(surroundings):
    """Start ``overlay top`` in a terminal of 80 by 24; return a function that reads it until some texts have appeared,
    and one that types.
    """
    child, ours = None, None

    def start(**environment):
        nonlocal child, ours
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        child = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(surroundings.control_directory)],
            stdin=theirs, stdout=theirs, stderr=theirs, cwd=ROOT, start_new_session=True,
            env={**os.environ, "TERM": "xterm-256color", "PYTHONUTF8": "1", **environment},
        )  # fmt: skip
        os.close(theirs)
        return child

    def read(*texts, timeout=60.0):
        data, deadline = b"", time.monotonic() + timeout
        while (not texts or any(each not in data for each in texts)) and time.monotonic() < deadline:
            if select.select([ours], [], [], 0.1)[0]:
                try:
                    data += os.read(ours, 65536)
                except OSError:  # the other end is closed
                    break
        return data

    start.read, start.type = read, lambda keys: os.write(ours, keys)
    yield start
    if child is not None:
        child.kill()
        child.wait()
        os.close(ours)


@pytest.fixture
def running(agent):
    """An agent with a peer that has a problem."""
    peers = [peer_status("tokyo", state="silent")]
    agent.answers["status"] = {"ok": True, "status": STATUS | {"peers": peers}}
    agent.answers["events"] = {"ok": True, "run": "a", "last": 0, "is_complete": True}
    agent.answers["history"] = {"ok": True, "history": {}}


@pytest.mark.slow
@pytest.mark.parametrize(("environment", "number"), [({}, None), ({"NO_COLOR": "1"}, signal.SIGTERM)])
def test_a_terminal_shows_it_and_is_given_back(running, terminal, environment, number):
    child = terminal(**environment)
    shown = terminal.read(b"Quit", b"tokyo", b"silent")
    assert b"tokyo" in shown
    assert b"silent" in shown
    if number is None:
        terminal.type(b"q")
    else:
        child.send_signal(number)
    shown += terminal.read()

    assert child.wait(60) == (0 if number is None else -number)
    assert b"\x1b[?1049l" in shown  # the previous screen (xterm, alternate screen)
    colours = re.search(rb"\x1b\[(?:[0-9;]*;)?(?:3[0-7]|9[0-7]|38;[25])[0-9;]*m", shown)
    assert bool(colours) == (not environment)


@pytest.mark.slow
def test_what_is_typed_ahead_is_part_of_the_filter(running, terminal):
    terminal()
    terminal.read(b"Quit")
    terminal.type(b"/zzq")

    assert b"no peer matches the filter" in terminal.read(b"no peer matches the filter")


@pytest.mark.slow
def test_without_an_agent_there_is_a_sentence_and_no_screen(terminal):
    child = terminal()
    said = terminal.read()

    assert child.wait(60) == 1
    assert b"no overlay agent runs for overlay0 here" in said
    assert b"\x1b[?1049h" not in said


def test_a_terminal_that_can_do_nothing_gets_a_sentence(terminal):
    child = terminal(TERM="dumb")
    said = terminal.read()

    assert child.wait(60) == 1
    assert b"overlay top needs a terminal" in said
