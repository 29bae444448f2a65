"""A virtual service on one machine: a client, two directors, three web servers.

All six are hosts of one overlay.  Requests to the virtual address are spread over the servers; then a web server is
killed, a server is drained, and a director is killed in the middle of a download.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scripts.demos.screen import DemoError
from scripts.demos.stage import OVERLAY

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from scripts.demos.stage import Stage

WEB = Path(__file__).with_name("web")
VIP = "203.0.113.80"
DIRECTORS = ("lb1", "lb2")
CLIENT = "client"


@dataclass(frozen=True)
class Server:
    """A web server on its own host."""

    name: str
    port: int
    weight: int


SERVERS = (Server("web1", 80, 1), Server("web2", 8080, 2), Server("web3", 80, 1))
DRAINED, KILLED = "web1", "web3"
HOSTS = (*DIRECTORS, *(server.name for server in SERVERS), CLIENT)
EVERY, RETRIES = (
    0.5,
    1,
)  # seconds from one check to the next, and how many failures in a row after the first make a server down

REQUESTS = 240
UNEVEN = 0.5  # of a server's share: a larger difference is not chance
FILE_SIZE = 24 * 1024 * 1024
RATE = 4 * 1024 * 1024  # bytes per second of the download
KILL_AFTER = 1.5  # seconds
DOWNLOAD_PATIENCE = 45.0

CLOSING = """\
What you saw: one address for clients, and behind it three servers, each of which got its share, one of them on another
port; servers that answered the client directly, through their own tunnels; a check that noticed a failure; and
directors that need not know a connection to send it to its server: the next director goes on where the last one died.
"""


class Demo:
    """The steps of the demo on a stage."""

    closing = CLOSING

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._web: dict[str, subprocess.Popen[str]] = {}
        self._file = stage.folder / "file"

    def run(self) -> None:
        """Take every step.  Raises DemoError at the first that fails."""
        step = self._stage.step
        with step("a client, two directors lb1 and lb2, three servers web1 to web3, on an underlay"):
            self._build()
        with step(f"one peers.toml for all, with a service at {VIP}, accepted by `overlay check`"):
            self._write_peers()
        with step("a web server on each server, on web2 at port 8080 instead of 80"):
            self._file.write_bytes(os.urandom(FILE_SIZE))
            for server in SERVERS:
                self._serve(server)
        with step("`overlay up --peers peers.toml` on each host") as notes:
            notes.append(f"all ready after {self._stage.start_agents(HOSTS):.2f} s")
        with step("every director finds that every server is up"):
            for director in DIRECTORS:
                self._wait_states(director, dict.fromkeys((each.name for each in SERVERS), "up"))
        with step(f"{REQUESTS} requests of the client to http://{VIP}/, by the weights 1, 2 and 1") as notes:
            notes.append(self._spread())
        with step(f"the web server of {KILLED} is killed (checks every {EVERY} s, 2 failures)") as notes:
            notes.append(self._kill_server())
        with step(f"the web server of {KILLED} is started again") as notes:
            notes.append(self._revive_server())
        with step(
            f"`overlay services drain web/{DRAINED}` while the client keeps a connection to it"
        ) as notes:
            notes.append(self._drain())
        with step("lb1 is killed with `kill -9` during a download of 24 MiB") as notes:
            notes.append(self._kill_director())
        self._stage.say("\n`overlay services` on lb2:\n")
        self._stage.say(self._stage.inside("lb2", str(OVERLAY), "services"))

    def doors(self) -> Sequence[str]:
        """Return the namespaces that are worth a visit."""
        return HOSTS

    def questions(self) -> list[str]:
        """Return commands to try, each preceded by its namespace."""
        return [
            f"{CLIENT} curl http://{VIP}/",
            f"lb2 {OVERLAY} services --watch",
            f"lb2 {OVERLAY} services enable web/{DRAINED}",
        ]

    # The network

    def _build(self) -> None:
        stage = self._stage
        stage.add_namespace("underlay")
        stage.add_bridge("underlay", "switch")
        for number, host in enumerate(HOSTS):
            stage.add_namespace(host)
            stage.add_cable(host, "eth0", "underlay", host)
            stage.inside("underlay", "ip", "link", "set", host, "master", "switch")
            stage.inside(host, "ip", "address", "add", f"{_underlay(number)}/24", "dev", "eth0")

    def _write_peers(self) -> None:
        lines = ["[network]", 'prefix = "10.244.0.0/16"']
        for number, host in enumerate(HOSTS):
            lines += [
                "",
                f"[peers.{host}]",
                f'public_key = "{self._stage.keygen(host)}"',
                f'endpoint = "{_underlay(number)}"',
                f'address = "10.244.0.{number + 1}"',
            ]
        servers = (
            f'{{ peer = "{each.name}", weight = {each.weight}{_mapping(each.port)} }}' for each in SERVERS
        )
        lines += [
            "",
            "[services.web]",
            f'address = "{VIP}"',
            "ports = [80]",
            f"directors = {json.dumps(DIRECTORS)}",
            f"servers = [{', '.join(servers)}]",
            (
                f'check = {{ kind = "http", path = "/health", every = {EVERY}, retries = {RETRIES}, '
                f"retry_delay = {EVERY}, timeout = 2, warmup = 0 }}"
            ),
        ]
        self._stage.write_peers("\n".join(lines) + "\n", DIRECTORS[0])

    def _serve(self, server: Server) -> None:
        self._web[server.name] = process = self._stage.start(
            server.name,
            *(sys.executable, WEB / "server.py", server.name, str(server.port), self._file, str(RATE)),
            stdout=subprocess.PIPE,
        )
        if _line(process) != "ready\n":
            raise DemoError(f"the web server of {server.name} did not start")

    # Steps

    def _spread(self) -> str:
        answers = self._count()
        total = sum(server.weight for server in SERVERS)
        for server in SERVERS:
            share, got = REQUESTS * server.weight / total, answers.get(server.name, 0)
            if abs(got - share) > UNEVEN * share:
                raise DemoError(
                    f"{server.name} answered {got} of {REQUESTS} requests instead of about {share:.0f}"
                )
        return _told(answers)

    def _kill_server(self) -> str:
        self._stage.end(self._web.pop(KILLED))
        began = time.monotonic()
        for director in DIRECTORS:
            self._wait_states(director, {KILLED: "down"})
        took = time.monotonic() - began
        answers = self._count()
        if answers.get(KILLED):
            raise DemoError(f"{KILLED} got {answers[KILLED]} requests though its check had failed")
        return f"down after {took:.1f} s, the next {REQUESTS} requests: {_told(answers)}"

    def _revive_server(self) -> str:
        self._serve(next(server for server in SERVERS if server.name == KILLED))
        began = time.monotonic()
        for director in DIRECTORS:
            self._wait_states(director, {KILLED: "up"})
        took = time.monotonic() - began
        if not self._count().get(KILLED):
            raise DemoError(f"{KILLED} got no request though it was up again")
        return f"up after {took:.1f} s"

    def _keep_connection(self) -> subprocess.Popen[str]:
        """Return a client with a connection to the server that will be drained."""
        client = self._client("stay", VIP, DRAINED, stdin=subprocess.PIPE)
        if _said(client) != DRAINED:
            raise DemoError(f"{DRAINED} answered none of 200 requests")
        return client

    def _drain(self) -> str:
        kept = self._keep_connection()
        self._stage.inside(DIRECTORS[0], str(OVERLAY), "services", "drain", f"web/{DRAINED}")
        answers = self._count()
        if answers.get(DRAINED):
            raise DemoError(f"{DRAINED} got {answers[DRAINED]} new connections though it was drained")
        self._ask(kept)
        self._stage.end(kept)
        return f"it answers there, and {REQUESTS} new ones go elsewhere: {_told(answers)}"

    def _ask(self, kept: subprocess.Popen[str]) -> None:
        assert kept.stdin is not None
        kept.stdin.write("once more\n")
        kept.stdin.flush()
        said = _said(kept)
        if said != DRAINED:
            raise DemoError(f"the connection to {DRAINED} did not last: {said}")

    def _kill_director(self) -> str:
        download = self._client("download", VIP)
        server = _said(download)
        time.sleep(KILL_AFTER)
        if download.poll() is not None:
            raise DemoError("the download ended before the director was killed")
        self._stage.kill_all(DIRECTORS[0])
        try:
            download.wait(DOWNLOAD_PATIENCE)
        except subprocess.TimeoutExpired:
            raise DemoError(f"the download did not end within {DOWNLOAD_PATIENCE:g} s") from None
        result: Any = _said(download)
        self._stage.end(download)
        expected = hashlib.sha256(self._file.read_bytes()).hexdigest()
        if not isinstance(result, dict) or result["size"] != FILE_SIZE:
            raise DemoError(f"the download broke off: {result}")
        if result["sha256"] != expected:
            raise DemoError(
                f"the received file differs from the sent one: sha256 {result['sha256']} instead of {expected}"
            )
        return f"it continues from {server} after {result['pause']:.1f} s to its end, and the sha256 is right"

    # Questions

    def _count(self) -> Mapping[str, int]:
        """Return how many of REQUESTS requests each server answered.  Raises DemoError if one failed."""
        client = self._client("count", VIP, str(REQUESTS))
        answers: dict[str, int] = _said(client)
        self._stage.end(client)
        failed = answers.keys() - {server.name for server in SERVERS}
        if failed:
            raise DemoError(f"of {REQUESTS} requests some failed: {_told(answers)}")
        return answers

    def _client(self, *words: str, **options: Any) -> subprocess.Popen[str]:
        return self._stage.start(
            CLIENT, sys.executable, WEB / "client.py", *words, stdout=subprocess.PIPE, **options
        )

    def _wait_states(self, director: str, states: Mapping[str, str]) -> None:
        def is_so() -> bool:
            (web,) = self._stage.ask(director, op="services", name="web")["services"]
            now = {each["name"]: each["state"] for each in web["servers"]}
            return all(now[name] == state for name, state in states.items())

        wanted = " and ".join(f"{name} is {state}" for name, state in states.items())
        self._stage.wait_for(is_so, f"{director} did not see that {wanted}")


def _underlay(number: int) -> str:
    return f"192.0.2.{11 + number}"


def _mapping(port: int) -> str:
    return "" if port == 80 else f", port = {port}"


def _told(answers: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {answers[name]}" for name in sorted(answers))


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def _said(client: subprocess.Popen[str]) -> Any:
    """Return the next value that *client* prints.  Raises DemoError if it ended instead."""
    line = _line(client)
    if not line:
        raise DemoError("the client ended without a result")
    return json.loads(line)
