"""The effects of checks on servers and their flows, on whole hosts: sorry servers, flows that are kept or reset,
commands.

One farm serves all tests.  Whether a server is up is asked at a port of its own (HEALTH), so that a server that "fails"
goes on answering clients: only the director decides what happens to their packets.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.netns.network import Network
from tests.netns.topology import wait_until

PATIENCE = 60.0
HEALTH = 9999
NOBODY = 65534
VIPS = {name: f"203.0.113.{number}" for number, name in enumerate(("web", "kept", "slow", "udp"), 1)}
CHECK = f'check = {{ kind = "tcp", port = {HEALTH}, every = 0.3, timeout = 20, retries = 0, warmup = 0 }}'
SERVICE = """
[services.{name}]
address = "{address}"
ports = [80]
directors = ["lb"]
scheduler = "rr"
servers = ["web1", "web2"]
{check}
{more}
"""
MORE = {
    "web": 'sorry = "static"\n'
    + "\n".join(
        f'{event}_command = ["{{script}}", "{event}"]' for event in ("up", "down", "quorum_up", "quorum_down")
    ),
    "kept": 'on_failure = "keep"',
    "slow": "slow_start = 3",
    "udp": 'protocol = "udp"',
}
SCRIPT = """#!/bin/sh
{ echo "$1 $(id -u) $(cat)"; } >> "$0.told"
"""
# Answers connections and datagrams with its name, and then echoes what it is sent.
SERVER = """
import socket, sys, threading
name = sys.argv[1].encode()
def talk(connection):
    with connection:
        try:
            connection.sendall(name)
            while data := connection.recv(4096):
                connection.sendall(data)
        except OSError:
            pass
def answer():
    while True:  # from the address that is asked, where the kernel would take another
        _, asked, _, source = udp.recvmsg(4096, 256)
        udp.sendmsg([name], asked, 0, source)
tcp = socket.create_server(("", 80), backlog=128)
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.setsockopt(socket.IPPROTO_IP, 8, 1)  # IP_PKTINFO
udp.bind(("", 80))
threading.Thread(target=answer, daemon=True).start()
print("ready", flush=True)
while True:
    threading.Thread(target=talk, args=(tcp.accept()[0],), daemon=True).start()
"""
HEALTHY = f"""
import socket
server = socket.create_server(("", {HEALTH}))
print("ready", flush=True)
while True:
    server.accept()[0].close()
"""
# Sends requests again and again, until it is told to stop.
ASKER = """
import socket, sys, threading
threading.Thread(target=lambda: (sys.stdin.read(), done.append(1)), daemon=True).start()
done = []
while not done:
    try:
        with socket.create_connection((sys.argv[1], 80), 60) as connection:
            print(connection.recv(100).decode(), flush=True)
    except OSError as error:
        print(type(error).__name__, flush=True)
"""


class Farm:
    """A director, two servers and a sorry server, and a client."""

    def __init__(self, lab, directory):
        self.lab, self.network = lab, Network(lab, directory)
        names = ("lb", "web1", "web2", "static", "client")
        self.hosts = {name: self.network.host(name) for name in names}
        self.lb, self.client = self.hosts["lb"], self.hosts["client"].namespace
        self.script = Path(f"/tmp/overlay-test-{os.getpid()}-event")
        self.told = Path(f"{self.script}.told")
        lab.on_exit(lambda: [path.unlink(missing_ok=True) for path in (self.script, self.told)])
        self.script.write_text(SCRIPT)
        self.script.chmod(0o755)
        self.told.touch()
        self.told.chmod(0o666)
        self.network.more = "".join(
            SERVICE.format(
                name=name, address=address, check=CHECK, more=MORE[name].replace("{script}", str(self.script))
            )
            for name, address in VIPS.items()
        )
        self.health = {}

    def start(self):
        for name in ("web1", "web2", "static"):
            self._run(name, SERVER)
        for name in ("web1", "web2"):
            self.mend(name)
        self.network.start()
        self.wait({"web1": "up", "web2": "up"})

    def _run(self, name, program):
        process = self.hosts[name].namespace.popen(
            sys.executable, "-c", program, name, stdout=subprocess.PIPE
        )
        assert process.stdout.readline() == "ready\n"
        return process

    def fail(self, *names):
        for name in names:
            self.lab.end_process(self.health.pop(name))

    def mend(self, *names):
        for name in names:
            self.health[name] = self._run(name, HEALTHY)

    def servers(self, service):
        (told,) = self.lb.services(service)
        return {each["name"]: each for each in told["servers"]}

    def wait(self, states):
        """Wait until the servers of all services have these states."""
        wait_until(
            lambda: all(
                self.servers(service)[name]["state"] == state
                for service in VIPS
                for name, state in states.items()
            ),
            PATIENCE,
        )

    def connect(self, service):
        """Return a connection, and the name of the server that answers it."""
        with self.client.entered():
            made = socket.create_connection((VIPS[service], 80), PATIENCE)
        return made, made.recv(100).decode()

    def names(self, *services):
        """Return the names of the servers that answer some connections to each of these services."""
        found = set()
        for service in services * 6:
            connection, name = self.connect(service)
            connection.close()
            found.add(name)
        return found

    def connect_to(self, service, name):
        """Return a connection to this server."""
        while True:
            made, answering = self.connect(service)
            if answering == name:
                return made
            made.close()


@pytest.fixture(scope="module")
def farm(module_lab, tmp_path_factory):
    made = Farm(module_lab, tmp_path_factory.mktemp("health"))
    made.start()
    yield made
    made.network.close()


@pytest.fixture
def failing(farm):
    """Makes servers fail; they work again after the test."""
    yield farm.fail
    for name in {"web1", "web2"} - farm.health.keys():
        farm.mend(name)
    farm.wait({"web1": "up", "web2": "up"})


def is_reset(connection):
    """Return whether *connection* is reset, as soon as the forwarder has been told what the agent knows."""
    try:
        connection.sendall(b"still there?")
        assert connection.recv(100) == b"still there?"
    except (ConnectionResetError, BrokenPipeError):
        return True
    return False


def test_sorry_server_answers_while_no_server_is_up_and_no_connection_fails_meanwhile(farm, failing):
    asking = farm.client.popen(
        sys.executable, "-c", ASKER, VIPS["web"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )

    reset = []

    def said_by(*names):
        """Read until each of these has answered, and the last ten answers are theirs."""
        last = []
        for line in asking.stdout:
            if line.strip() == "ConnectionResetError":
                reset.append(line)  # its server failed before it answered
                continue
            last = [*last[-9:], line.strip()]
            assert last[-1] in {"web1", "web2", "static"}
            if len(last) == 10 and set(last) == set(names):
                return

    said_by("web1", "web2")
    failing("web1")
    said_by("web2")
    failing("web2")
    said_by("static")
    farm.mend("web1")
    said_by("web1")
    farm.mend("web2")
    said_by("web1", "web2")
    asking.stdin.close()
    assert asking.wait(PATIENCE) == 0
    assert len(reset) <= 2  # one server failed, and the other


def test_commands_are_run_as_nobody_and_told_what_has_happened(farm, failing):
    def told():
        lines = [line.split(" ", 2) for line in farm.told.read_text().splitlines()]
        return [(event, int(uid), json.loads(text)) for event, uid, text in lines]

    def about(event):
        return [each for name, _, each in told() if name == event]

    farm.told.write_text("")
    failing("web1", "web2")
    wait_until(lambda: len(about("down")) == 2 and about("quorum_down"), PATIENCE)
    before = len(told())  # perhaps with a command of an earlier test that was still running
    farm.mend("web1")
    wait_until(lambda: {event for event, _, _ in told()[before:]} == {"up", "quorum_up"}, PATIENCE)
    assert all(uid not in {0, os.getuid()} for _, uid, _ in told())
    assert {each["server"] for each in about("down")} == {"web1", "web2"}
    assert about("quorum_down") == [{"service": "web", "has_quorum": False, "live": 0}]
    later = {event: each for event, _, each in told()[before:]}
    assert later["quorum_up"] == {"service": "web", "has_quorum": True, "live": 1}
    assert (later["up"]["service"], later["up"]["server"]) == ("web", "web1")


def test_connections_to_a_server_that_fails_are_reset_or_kept_as_the_service_says(farm, failing):
    reset, kept = farm.connect_to("web", "web1"), farm.connect_to("kept", "web1")
    other = farm.connect_to("web", "web2")
    with reset, kept, other:
        failing("web1")
        farm.wait({"web1": "down"})
        for connection in (kept, other):
            connection.sendall(b"still there?")
            assert connection.recv(100) == b"still there?"
        wait_until(lambda: is_reset(reset), PATIENCE, "a reset")
    wait_until(lambda: farm.names("web", "kept") == {"web2"}, PATIENCE)


def test_connections_to_a_server_that_is_drained_are_kept_and_to_one_disabled_reset(farm):
    connection = farm.connect_to("web", "web1")
    with connection:
        assert farm.lb.overlay("services", "drain", "web/web1").returncode == 0
        wait_until(lambda: farm.names("web") == {"web2"}, PATIENCE)
        connection.sendall(b"still there?")
        assert connection.recv(100) == b"still there?"
        assert farm.lb.overlay("services", "disable", "web/web1").returncode == 0
        wait_until(lambda: is_reset(connection), PATIENCE, "a reset")
    assert farm.lb.overlay("services", "enable", "web/web1").returncode == 0
    wait_until(lambda: farm.names("web") == {"web1", "web2"}, PATIENCE)


def test_flow_by_udp_goes_to_another_server_at_once(farm, failing):
    with farm.client.entered():
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with udp:
        udp.settimeout(PATIENCE)
        udp.connect((VIPS["udp"], 80))

        def ask():
            udp.send(b"who?")
            return udp.recv(100).decode()

        first = ask()
        other = {"web1": "web2", "web2": "web1"}[first]
        assert {ask() for _ in range(5)} == {first}
        failing(first)
        farm.wait({first: "down"})
        wait_until(lambda: ask() == other, PATIENCE)  # once the forwarder has been told
        assert {ask() for _ in range(5)} == {other}
        assert farm.lb.overlay("services", "drain", f"udp/{other}").returncode == 0
        farm.mend(first)
        farm.wait({first: "up"})
        assert {ask() for _ in range(5)} == {other}  # drained: it keeps what it has
        assert farm.lb.overlay("services", "disable", f"udp/{other}").returncode == 0
        wait_until(lambda: ask() == first, PATIENCE)
        assert {ask() for _ in range(5)} == {first}
        assert farm.lb.overlay("services", "enable", f"udp/{other}").returncode == 0


def test_server_that_comes_back_gets_its_weight_over_a_time(farm, failing):
    assert farm.lb.overlay("services", "weight", "slow/web1", "100").returncode == 0
    failing("web1")
    farm.wait({"web1": "down"})
    farm.mend("web1")
    seen = []

    def is_whole():
        seen.append(farm.servers("slow")["web1"]["effective_weight"])
        return seen[-1] == 100

    wait_until(is_whole, PATIENCE)
    assert seen == sorted(seen)
    with contextlib.suppress(ValueError):  # a busy machine may have seen none in between
        seen.remove(0)
    assert all(weight % 10 == 0 for weight in seen)
    assert farm.servers("web")["web1"]["effective_weight"] == 1


def test_server_that_is_taken_out_of_the_file_loses_its_connections_and_others_keep_theirs(farm):
    gone, stays = farm.connect_to("web", "web1"), farm.connect_to("web", "web2")
    with gone, stays:
        text = farm.network.toml()
        without = text.replace('servers = ["web1", "web2"]', 'servers = ["web2"]')
        assert "reloaded" in farm.lb.reload(without)
        stays.sendall(b"still there?")
        assert stays.recv(100) == b"still there?"
        wait_until(lambda: is_reset(gone), PATIENCE, "a reset")
        assert "reloaded" in farm.lb.reload(text)
    farm.wait({"web1": "up"})
