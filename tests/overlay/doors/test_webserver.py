"""The page as two real processes: what each may do, how they end, and what a browser gets from them."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from overlay.doors import webserver
from overlay.host import control
from overlay.host.process.privileges import Capability
from tests.overlay.doors.site import ENDING, Agent, agent_at
from tests.ports import free_port

PATIENCE = 60.0  # seconds for a process to do what it should


def parent_of(process):
    """Return the parent of a directory of /proc; None for a process that is gone."""
    with contextlib.suppress(OSError):
        return int((process / "stat").read_text().rpartition(")")[2].split()[1])
    return None


class Web:
    """``overlay web`` for an interface that no other test uses."""

    def __init__(self, interface, *options, listen=None, environment=None):
        self.port = free_port()
        self.place = f"127.0.0.1:{self.port}" if listen is None else listen.format(port=self.port)
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "overlay",
                "web",
                "--interface",
                interface,
                "--listen",
                self.place,
                *options,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **(environment or {})},
        )
        self.said = self.process.stdout.readline()

    @property
    def server(self):
        """The process id of the other one."""
        found = [
            int(each.name)
            for each in Path("/proc").iterdir()
            if each.name.isdigit() and parent_of(each) == self.process.pid
        ]
        (child,) = found
        return child

    def get(self, path, host="127.0.0.1", **headers):
        connection = http.client.HTTPConnection(host, self.port, timeout=PATIENCE)
        with contextlib.closing(connection):
            connection.request("GET", path, headers=headers)
            reply = connection.getresponse()
            return reply.status, reply.read()

    def end(self):
        self.process.kill()
        self.process.wait(PATIENCE)
        self.process.stdout.close()
        self.process.stderr.close()


@pytest.fixture
def started():
    with contextlib.ExitStack() as stack:

        def start(*arguments, **options):
            web = Web(*arguments, **options)
            stack.callback(web.end)
            return web

        yield start


@pytest.fixture
def interface():
    return f"web{os.getpid() % 10**8}"


@pytest.fixture
def path(interface):
    """Return the address of the agent of *interface* here; the directory is created as an agent creates it."""
    directory = control.own_directory()
    directory.mkdir(mode=0o755, exist_ok=True)
    return control.control_path(interface, directory)


def status_of(pid):
    return dict(re.findall(r"^(\w+):[ \t]*(.*)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE))


def until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_alive(pid):
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return status_of(pid)["State"][0] not in "ZX"
    return False


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="giving root's privileges up takes root")


@needs_root
def test_the_process_for_browsers_owns_nothing_and_the_other_can_only_end_it(started, interface, path):
    web = started(interface)
    own, server = status_of(web.process.pid), status_of(web.server)
    sets = ("CapPrm", "CapEff", "CapInh", "CapBnd", "CapAmb")

    assert web.said == f"http://{web.place}/\n"
    assert {int(server[name], 16) for name in sets} == {0}
    assert {int(own[name], 16) for name in sets} == {0, 1 << Capability.KILL}
    assert own["Uid"].split()[0] == "0"
    assert set(server["Uid"].split()) == set(server["Gid"].split()) != {"0"}
    assert (server["Groups"].strip(), server["NoNewPrivs"]) == ("", "1")


@pytest.mark.slow
@needs_root
def test_two_pages_have_users_of_their_own(started, interface, path):
    users = {status_of(started(interface).server)["Uid"] for _ in range(2)}

    assert len(users) == 2


@pytest.mark.slow
def test_the_agent_is_found_whenever_it_runs(started, interface, path):
    web = started(interface)
    status, body = web.get("/api/status")
    assert (status, json.loads(body)["error"]["kind"]) == (503, "no_agent")

    with agent_at(path, Agent(3)):
        until(lambda: web.get("/api/status")[0] == 200)
        assert len(json.loads(web.get("/api/status")[1])["peers"]) == 3
        assert b"overlay" in web.get("/")[1]


@pytest.mark.slow
def test_the_token_is_asked_for_and_printed_in_the_part_that_browsers_send_to_nobody(
    started, interface, path
):
    web = started(interface, "--token")
    address, _, token = web.said.strip().partition("#token=")

    assert address == f"http://{web.place}/"
    assert len(token) == 32
    assert web.get("/api/status")[0] == 401
    assert web.get("/api/status", Authorization=f"Bearer {token}")[0] == 503


def test_every_address_but_loopback_has_a_token(started, interface, path):
    web = started(interface, listen="0.0.0.0:{port}")

    assert "#token=" in web.said
    assert web.get("/api/status")[0] == 401


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_however_one_process_ends_the_other_does(started, interface, path, number, tmp_path):
    place = tmp_path / "page.sock"
    web = started(interface, listen=str(place))
    server = web.server

    web.process.send_signal(number)

    code = web.process.wait(PATIENCE)
    assert code == (130 if number == signal.SIGINT else -number)
    until(lambda: not is_alive(server))
    assert place.exists() == (number == signal.SIGKILL)  # before, SIGTERM left it, too


@pytest.mark.slow
def test_a_server_that_was_killed_ends_the_command_with_a_sentence(started, interface, path):
    web = started(interface)

    os.kill(web.server, signal.SIGKILL)

    assert web.process.wait(PATIENCE) == 1
    assert "the process that serves the page has ended" in web.process.stderr.read()


@pytest.mark.slow
def test_a_port_that_is_taken_is_said(started, interface, path):
    first = started(interface)

    second = started(interface, listen=first.place)

    assert second.process.wait(PATIENCE) == 1
    assert f"{first.place} is taken by another program" in second.process.stderr.read()


def test_tokens_are_not_repeated():
    assert len({webserver.make_token() for _ in range(100)}) == 100


def test_the_agent_answers_the_end_of_a_conversation_that_takes_no_more(path):
    """A connection that is half-closed still gets its answer: the page relies on that."""
    with agent_at(path, Agent(1)), socket.socket(socket.AF_UNIX) as client:
        client.settimeout(ENDING)
        client.connect(str(path))
        client.sendall(control.encode({"op": "services"}))
        client.shutdown(socket.SHUT_WR)

        assert control.decode(client.makefile("rb").readline())["ok"]
