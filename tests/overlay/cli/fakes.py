"""Fakes of what commands interact with: an agent on its control socket, a clock, a tunnel that echoes."""

from __future__ import annotations

import contextlib
import threading
from ipaddress import ip_address

from overlay.cli.echo import EchoError
from overlay.host import control

STATUS = {
    "node": "paris",
    "interface": "overlay0",
    "public_key": "CgXSm3ePSUZYhd1QfEqQZ5CR5xkX3omnyO672MUvlBE=",
    "device": "tun",
    "mtu": 1420,
    "mtu_reason": "1500 on the way to tokyo at 192.0.2.2, less 80 for the tunnel",
    "port": 51820,
    "addresses": ["10.244.1.0", "fd00:244:1::"],
    "prefixes": ["10.244.0.0/16"],
    "pid": 4321,
    "forwarder_pid": 4322,
    "packet_path": "compiled",
    "lanes": 1,
    "lane_traffic": [],
    "aes": "OpenSSL 3.0.19",
    "uptime": 3725.5,
    "peers_file": "/etc/overlay/peers.toml",
    "reload_error": None,
    "key_error": None,
    "store": None,
    "containers": {"attached": 0, "subnets": []},
    "notes": [],
    "drops": {},
    "absent": {"waiting": 0, "removed": 0},
    "strangers": [],
    "services": {},
    "peers": [],
}


def peer_status(name, **fields):
    return {
        "name": name,
        "public_key": "sqMBX/3hJacIcMLLrdJo/XQdeYEPiF54spHJIWnN9xI=",
        "endpoint": None,
        "addresses": [],
        "subnets": [],
        "mac": None,
        "own_mac": None,
        "keepalive": 0,
        "last_handshake": None,
        "last_received": None,
        "rx_bytes": 0,
        "tx_bytes": 0,
        "rx_packets": 0,
        "tx_packets": 0,
        "rx_units": 0,
        "tx_units": 0,
        "path_mtu": None,
        "learnt_macs": 0,
        "session_lanes": 1,
        "open_lanes": 1,
        "unit_segments": 0,
        "state": "idle",
        "encapsulation": "wireguard",
        "is_encrypted": True,
        "drops": {},
        "notes": [],
    } | fields


def peer_answer(name, *addresses, own=("10.244.1.0", "fd00:244:1::"), **fields):
    row = peer_status(name, addresses=list(addresses))
    explained = {
        "public_key": f"{name}+key=",
        "own_name": "paris",
        "own_addresses": list(own),
        "own_public_key": "own+key=",
        "has_own_endpoint": True,
        "is_bare": False,
        "is_agent": True,
        "is_configured": True,
        "resolve_error": None,
        "absent": {"waiting": 0, "removed": 0},
        "strangers": [],
        "asked_address": None,
        "carried_by": "UDP",
        "identified_by": None,
        "configured_endpoint": None,
        "endpoint_origin": None,
        "round_trip": None,
        "services": [],
        "mismatched": 0,
        "foreign": 0,
        "forwarder_note": None,
    }
    return {"ok": True, "peer": row | explained | fields}


def ping_answer(seconds, *, is_possible=True):
    return {"ok": True, "ping": {"is_possible": is_possible, "seconds": seconds}}


class Clock:
    """A clock that advances when someone sleeps; *on_sleep* is called each time."""

    def __init__(self):
        self.time = 1000.0
        self.on_sleep = lambda: None

    def now(self):
        return self.time

    def sleep(self, seconds):
        self.time += seconds
        self.on_sleep()


class FakeAgent:
    """Answers each request with what *answers* holds for its operation: an object, or a function of the request.

    The entries of *rows* for an operation are sent before.
    """

    def __init__(self, path):
        self.requests = []
        self.answers, self.rows = {}, {}
        self._control = control.listen(path)
        self._control.socket.setblocking(True)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._is_open = True

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        """Exit as an agent does: the socket goes first."""
        if self._is_open:
            self._is_open = False
            self._control.socket.shutdown(2)
            self._thread.join()
            self._control.close()

    def _serve(self):
        while True:
            try:
                stream, _ = self._control.socket.accept()
            except OSError:
                return
            # A command that is interrupted does not read its answer.
            with (
                contextlib.suppress(BrokenPipeError, ConnectionResetError),
                stream,
                stream.makefile("rb") as lines,
            ):
                line = lines.readline()
                if not line:
                    continue
                request = control.decode(line)
                self.requests.append(request)
                for piece in self.rows.get(request["op"], ()):
                    stream.sendall(control.encode({"rows": piece, "more": True}))
                answer = self.answers[request["op"]]
                stream.sendall(control.encode(answer(request) if callable(answer) else answer))


class Tunnel:
    """An echo socket whose replies take as long as *delays* says, by sequence; None is no reply.

    An exception in place of a delay is raised by send(); an ICMP error with its sender comes back immediately.
    """

    def __init__(self, clock, *delays):
        self.clock = clock
        self.delays = delays
        self.addresses = None
        self.is_closed = False
        self._replies = []

    def open(self, own, peer):
        self.addresses = str(own), str(peer)
        return self

    def send(self, sequence):
        delay = self.delays[sequence - 1]
        if isinstance(delay, Exception):
            raise delay
        if isinstance(delay, tuple):
            sender, error = delay
            self._replies.append((self.clock.time, EchoError(sequence, ip_address(sender), error)))
        elif delay is not None:
            self._replies.append((self.clock.time + delay, sequence))
            self._replies.sort(key=lambda reply: reply[0])

    def receive(self, timeout):
        if self._replies and self._replies[0][0] <= self.clock.time + timeout:
            at, sequence = self._replies.pop(0)
            self.clock.time = max(self.clock.time, at)
            return sequence
        self.clock.time += timeout
        return None

    def close(self):
        self.is_closed = True
