"""A page and the agent behind it, which answers what a test wants; both run in threads of the test,
like two processes.
"""

from __future__ import annotations

import contextlib
import math
import socket
import threading
import time
from types import SimpleNamespace

import trio

from overlay import questions
from overlay.doors import http, page, readonly
from overlay.host import control
from overlay.records.history import INTERVAL, SAMPLES, VALUES
from peers.listening import parse_place

STATES = ("up", "up", "up", "up", "idle", "connecting", "silent", "unreachable", "unencrypted", "up")
ENDING = 30.0  # seconds for a thread to start or to end


def peer(number, name=None, state=None, **values):
    """Return a peer's row of the status."""
    state = STATES[number % len(STATES)] if state is None else state
    name = f"peer{number}" if name is None else name
    notes = [f"{name} at 192.0.2.{number % 250} has not answered: see `overlay ping {name}`"]
    return {
        "name": name,
        "state": state,
        "public_key": "x3njT8T1IzeUcbs9+rgAvy3c0gC0R3V+EBedEZfytFc=",
        "encapsulation": "vxlan" if state == "unencrypted" else "wireguard",
        "is_encrypted": state != "unencrypted",
        "addresses": [f"10.244.{number % 250}.1"],
        "subnets": [f"10.244.{number % 250}.0/24"],
        "endpoint": f"192.0.2.{number % 250}:51820",
        "last_handshake": None if state == "unencrypted" else 42.0 + number,
        "last_received": 1.5,
        "rx_bytes": 123456789 * (number + 1),
        "tx_bytes": 98765432,
        "rx_packets": 100000,
        "tx_packets": 90000,
        "path_mtu": 1420,
        "drops": {"source": 3, "replay": 1} if number % 3 == 0 else {},
        "notes": notes if state in {"silent", "unreachable"} else [],
        **values,
    }


def status(peers, **values):
    """Return the rest of the status."""
    return {
        "node": "paris",
        "interface": "overlay0",
        "device": "tun",
        "public_key": "AY1X6q7LmSThjaSdMPmTs7LTkI971d+0dxdtL8ZfTH4=",
        "mtu": 1420,
        "mtu_reason": "1500 on the way to tokyo at 192.0.2.2, less 80 for the tunnel",
        "port": 51820,
        "addresses": ["10.244.0.1"],
        "prefixes": ["10.244.0.0/16"],
        "pid": 1,
        "forwarder_pid": 2,
        "packet_path": "compiled",
        "lanes": 1,
        "uptime": 200000.0,
        "peers_file": "/etc/overlay/peers.toml",
        "store": None,
        "is_complete": True,
        "services": {},
        "notes": [note for row in peers for note in row["notes"]][:10],
        "drops": {"no_peer": 17, "udp_filtered": 240},
        "absent": {"waiting": 0, "removed": 0},
        "strangers": [],
        **values,
    }


def history(number, samples):
    """Return an hour of a peer: two waves, a jump in the round trip, some loss, and ten minutes without samples."""
    first = SAMPLES - samples

    def each(value):
        return [None if place < 60 else round(value(place), 6) for place in range(first, SAMPLES)]

    received, sent, trip, loss, drops = (
        each(lambda at: 4e6 * (1 + math.sin(at / 23 + number)) + 6e5 * (at % 7)),
        each(lambda at: 1.2e6 * (1 + math.cos(at / 31 + number)) + 1e5 * (at % 5)),
        each(lambda at: 0.012 + 0.004 * (at % 9 == 0) + (0.03 if 200 < at < 220 else 0)),
        each(lambda at: 1 / 3 if 200 < at < 215 and at % 2 else 0.0),
        each(lambda at: 2.5 if 205 < at < 212 else 0.0),
    )
    return dict(zip(VALUES, (received, sent, trip, loss, drops), strict=True))


def service(name="web", state="up"):
    """Return a service with two servers."""
    return {
        "name": name,
        "addresses": ["203.0.113.80"],
        "ports": ["80", "443"],
        "protocols": ["tcp"],
        "scheduler": "wlc",
        "state": state,
        "reason": None,
        "active_flows": 31,
        "servers": [
            {
                "name": "web1",
                "state": "up",
                "reason": "",
                "weight": 2,
                "active_flows": 20,
                "bytes_per_s": 812345.0,
            },
            {
                "name": "web2",
                "state": "down",
                "reason": "no answer within 3 s",
                "weight": 1,
                "active_flows": 0,
                "bytes_per_s": 0.0,
            },
        ],
    }


def event(number, text, level="info", peer=None):
    """Return one event."""
    return {
        "number": number,
        "timestamp_seconds": time.time() - 600 + number,
        "level": level,
        "text": text,
        "peer": peer,
    }


def finding(problem, remedy="", severity="warning", peer=None):
    """Return one finding."""
    return {
        "name": "firewall_forward",
        "severity": severity,
        "problem": problem,
        "remedy": remedy,
        "peer": peer,
    }


class Agent:
    """The answers; a test may change them while it runs."""

    def __init__(self, peers=10):
        self.peers = [peer(number) for number in range(peers)]
        self.status = {}
        self.services = [service()]
        self.events = [
            event(1, "ready node=paris interface=overlay0 mtu=1420 port=51820 peers=10"),
            event(
                2,
                "handshake completed peer=peer1 endpoint=192.0.2.1:51820 role=initiator took=0.031",
                peer="peer1",
            ),
            event(3, "peer lost peer=peer7: it is silent", "warning", "peer7"),
        ]
        self.findings = [
            finding(
                "the filter `DOCKER-USER` drops what is forwarded from overlay0",
                "`iptables -I DOCKER-USER -i overlay0 -j ACCEPT`, or start with --forward",
                "error",
            ),
            finding("UDP buffers are small", "`sysctl -w net.core.rmem_max=8388608`", "notice"),
        ]
        self.refused = {}  # question: refusal
        self.asked = []
        self.samples = SAMPLES

    async def answer(self, request, tell_rows):
        op = request.get("op")
        self.asked.append(dict(request))
        if op in self.refused:
            return self.refused[op]
        match op:
            case "status":
                for at in range(0, len(self.peers), 20):
                    await tell_rows(self.peers[at : at + 20])
                return {"ok": True, "status": {**status(self.peers), **self.status}}
            case "history":
                name, samples = request.get("name"), min(self.samples, request.get("samples", SAMPLES))
                rows = [each for each in self.peers if name in {None, each["name"]}]
                if name is not None and not rows:
                    return questions.refusal(f"there is no peer {name}", "unknown_peer")
                for number, each in enumerate(rows):
                    row = history(number, samples) if samples else {key: [] for key in VALUES}
                    await tell_rows(
                        [{"name": each["name"], "is_kept": True, "round_trip_by": "pings", **row}]
                    )
                times = [10_000.0 - INTERVAL * (samples - 1 - at) for at in range(samples)]
                told = {"interval_seconds": INTERVAL, "times_seconds": times, "now_seconds": 10_004.0}
                return {"ok": True, "history": told}
            case "services":
                return {
                    "ok": True,
                    "services": self.services,
                    "notes": [],
                    "rates_over_s": 10.0,
                    "drops": {},
                }
            case "events":
                await tell_rows(self.events)
                return {"ok": True, "run": "1", "last": len(self.events), "is_complete": True}
            case "doctor":
                return {
                    "ok": True,
                    "doctor": {
                        "node": "paris",
                        "interface": "overlay0",
                        "peers": len(self.peers),
                        "findings": self.findings,
                    },
                }
        return questions.refusal("this agent does not know that request")


@contextlib.contextmanager
def in_thread(main, *arguments):
    """Run ``main(begun, *arguments)`` in a separate event loop, until the end of the block."""
    begun, state = threading.Event(), SimpleNamespace(scope=None, token=None, error=None)

    async def cancellable():
        with trio.CancelScope() as state.scope:
            state.token = trio.lowlevel.current_trio_token()
            await main(begun.set, *arguments)

    def run():
        try:
            trio.run(cancellable, strict_exception_groups=True)
        except BaseException as error:  # noqa: BLE001  it is told to the test
            state.error = error
        begun.set()

    thread = threading.Thread(target=run)
    thread.start()
    assert begun.wait(ENDING)
    try:
        yield
    finally:
        with contextlib.suppress(trio.RunFinishedError):
            state.token.run_sync_soon(state.scope.cancel)
        thread.join(ENDING)
        assert not thread.is_alive()
        if state.error is not None:
            raise state.error


@contextlib.contextmanager
def agent_at(path, agent):
    """Make *agent* answer at the control socket *path*."""

    async def serve(begun):
        begun()
        await questions.serve(opened.socket, agent.answer, lambda *_: None)

    opened = control.listen(path)
    try:
        with in_thread(serve):
            yield
    finally:
        opened.close()


@contextlib.contextmanager
def page_for(path, token=None, host="127.0.0.1"):
    """Serve the page of the agent at *path*; yield its place."""
    listener = socket.socket()
    listener.bind((host, 0))
    listener.listen(64)
    listener.setblocking(False)
    place = parse_place(f"{host}:{listener.getsockname()[1]}")
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    relaying = threading.Thread(target=readonly.relay, args=(ours, lambda: path))
    relaying.start()

    async def serve(begun):
        made = page.Page(readonly.RelayClient(theirs).ask, place, token)
        begun()
        incoming = trio.SocketListener(trio.socket.from_stdlib_socket(listener))
        await http.serve(incoming, made.answer, page.LIMITS, page.refuse)

    with contextlib.closing(ours), contextlib.closing(listener):
        try:
            with in_thread(serve):
                yield place
        finally:
            theirs.close()
            relaying.join(ENDING)
            assert not relaying.is_alive()
