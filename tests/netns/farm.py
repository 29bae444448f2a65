"""Servers and clients of virtual services, as programs in namespaces."""

from __future__ import annotations

import collections
import subprocess
import sys
from typing import TYPE_CHECKING, NamedTuple

from tests.netns.forks import server

if TYPE_CHECKING:
    from tests.netns.topology import Namespace

SERVER = r"""
import contextlib, select, socket, sys
name, port = sys.argv[1], int(sys.argv[2])
listeners = [socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=128)]
IP_PKTINFO, IPV6_RECVPKTINFO, IPV6_PKTINFO = 8, 49, 50
for family, level, option in (
    (socket.AF_INET, socket.IPPROTO_IP, IP_PKTINFO), (socket.AF_INET6, socket.IPPROTO_IPV6, IPV6_RECVPKTINFO),
):
    udp = socket.socket(family, socket.SOCK_DGRAM)
    if family == socket.AF_INET6:
        udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    udp.setsockopt(level, option, 1)
    udp.bind(("", port))
    listeners.append(udp)
def plain(address):
    return address.removeprefix("::ffff:")
print("ready", flush=True)
while True:
    for ready in select.select(listeners, [], [])[0]:
        if ready.type == socket.SOCK_STREAM:
            connection, peer = ready.accept()
            with connection, contextlib.suppress(OSError):  # a check may have reset it
                local = connection.getsockname()
                connection.sendall(f"{name} {plain(peer[0])} {plain(local[0])} {local[1]}".encode())
            continue
        _, controls, _, peer = ready.recvmsg(2048, 256)
        for level, kind, data in controls:
            if level == socket.IPPROTO_IP and kind == IP_PKTINFO:
                local, info = socket.inet_ntop(socket.AF_INET, data[8:12]), bytes(4) + data[8:12] + bytes(4)
            elif level == socket.IPPROTO_IPV6 and kind == IPV6_PKTINFO:
                local, info = socket.inet_ntop(socket.AF_INET6, data[:16]), data[:16] + bytes(4)
            else:
                continue
            answer = f"{name} {peer[0]} {local} {port}".encode()
            try:
                ready.sendmsg([answer], [(level, kind, info)], 0, peer)
            except OSError as error:
                print(error, flush=True)
"""
CLIENT = r"""
import socket, sys
protocol, address, port, count = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
PATIENCE = 20  # seconds: a busy machine may hold everything up; less than a command may take
for _ in range(count):
    try:
        if protocol == "tcp":
            with socket.create_connection((address, port), PATIENCE) as connection:
                print(connection.makefile().read(), flush=True)
        else:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            with socket.socket(family, socket.SOCK_DGRAM) as udp:
                udp.settimeout(PATIENCE)
                udp.connect((address, port))
                udp.send(b"who?")
                print(udp.recv(2048).decode(), flush=True)
    except OSError as error:
        print(type(error).__name__, flush=True)
        if isinstance(error, TimeoutError):
            break
"""


class Answer(NamedTuple):
    """A server's answer: its name, and the client and its own address and port as it saw them."""

    server: str
    client: str = ""
    address: str = ""
    port: str = ""


def serve(namespace: Namespace, port: int, name: str) -> subprocess.Popen[str]:
    """Start a server called *name*, and return once it accepts connections."""
    process = namespace.popen(sys.executable, "-c", SERVER, name, str(port), stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def ask(
    namespace: Namespace, address: str, count: int = 1, protocol: str = "tcp", port: int = 80
) -> list[Answer]:
    """Return the answers to *count* requests: the name of an error if there was none, and nothing more after a
    time-out.
    """
    done = server().completed(namespace, CLIENT, ["-c", protocol, address, str(port), str(count)])
    assert done.returncode == 0, done.stderr
    return [Answer(*line.split()) for line in done.stdout.splitlines()]


def names(answers: list[Answer]) -> collections.Counter[str]:
    """Return how often each server answered."""
    return collections.Counter(answer.server for answer in answers)
