"""Programs that show which server serves a client, and when.

    python -m scripts.benchmarks.served answer NAME TCP-PORT UDP-PORT   NAME for each connection and each datagram
    python -m scripts.benchmarks.served connect ADDRESS PORT            a new connection every few milliseconds
    python -m scripts.benchmarks.served send ADDRESS PORT               datagrams of one flow

The last two go on until their stdin ends, then print times of CLOCK_MONOTONIC and the answers, as JSON.  The answer is
``""`` if none came.  Datagrams have the time at which they were sent, so that a late answer counts for the right one.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import threading
import time

INTERVAL = 0.004  # seconds
PATIENCE = 1.0  # for an answer to a connection


def answer(name: str, port: int, udp_port: int) -> None:
    """Answer forever."""
    tcp = socket.create_server(("", port), backlog=128)
    threading.Thread(target=echo, args=(name.encode(), udp_port), daemon=True).start()
    print("ready", flush=True)
    while True:
        connection, _ = tcp.accept()
        with connection:
            connection.sendall(name.encode())


def echo(name: bytes, port: int) -> None:
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.setsockopt(socket.IPPROTO_IP, 8, 1)  # IP_PKTINFO: answers come from the address that was asked
    udp.bind(("", port))
    while True:
        data, ancillary, _, peer = udp.recvmsg(64, 64)
        wanted = ancillary[0][2]
        udp.sendmsg([data + name], [(socket.IPPROTO_IP, 8, bytes(4) + wanted[8:12] + bytes(4))], 0, peer)


def is_over() -> bool:
    """Return whether stdin has ended."""
    return bool(select.select([0], [], [], 0)[0])


def connect(address: str, port: int) -> list[tuple[float, str]]:
    """Return which server answered each connection."""
    answers = []
    while not is_over():
        began = time.monotonic()
        try:
            with socket.create_connection((address, port), PATIENCE) as connection:
                said = connection.recv(64).decode()
        except OSError:
            said = ""
        answers.append((began, said))
        time.sleep(max(0.0, began + INTERVAL - time.monotonic()))
    return answers


def send(address: str, port: int) -> list[tuple[float, str]]:
    """Return when each answered datagram was sent, and which server answered it."""
    answers = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.connect((address, port))
        udp.setblocking(False)
        while not is_over():
            now = time.monotonic()
            try:
                udp.send(f"{now:.6f} ".encode())
                while True:
                    at, _, name = udp.recv(64).decode().partition(" ")
                    answers.append((float(at), name))
            except OSError:  # none yet, or an ICMP error
                pass
            time.sleep(INTERVAL)
    return sorted(answers)


if __name__ == "__main__":
    how, where, *ports = sys.argv[1:]
    if how == "answer":
        answer(where, int(ports[0]), int(ports[1]))
    else:
        print("ready", flush=True)
        print(json.dumps((connect if how == "connect" else send)(where, int(ports[0]))))
