"""A forwarder that receives units of one peer by several lanes, and feeders for them; prints the results as JSON."""

from __future__ import annotations

import json
import os
import resource
import socket
import struct
import subprocess
import sys
import threading
import time
from dataclasses import astuple
from ipaddress import IPv4Address
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from overlay.forwarding.bulk.units import Cutter, UnitKey
from overlay.forwarding.keypair import NONCE
from overlay.forwarding.lane.keypairs import lane_of
from overlay.forwarding.loop import LinkEnd, Loop
from overlay.forwarding.offload.flow import OVERHEAD
from overlay.host import clock
from overlay.host.process.cpu import has_aes
from overlay.host.sockets.reuseport import INDEX_MARK
from overlay.host.sockets.underlay import open_underlay
from overlay.host.tun import open_tun
from overlay.link import codec
from overlay.link import messages as link
from overlay.linux import SOL_UDP, UDP_SEGMENT
from overlay.session.constants import Timing
from overlay.session.outputs import InstallKeypair
from overlay.wire import control
from overlay.wire.bulk import AES_256_GCM, CHACHA20_POLY1305
from overlay.wire.messages import TRANSPORT_HEADER, TYPE_TRANSPORT
from overlay.wire.virtio import GSO_TCPV4
from scripts.benchmarks.parts import HEADERS, MTU, SEGMENT, super_packet

INTERFACE = "lanes0"
CIPHER = AES_256_GCM if has_aes() else CHACHA20_POLY1305
KEYS = [bytes([number]) * 32 for number in range(4)]
FULL = 3 * 1024 * 1024  # bytes in the queue of a socket, which holds 16 MiB, beyond which its feeder waits
PAUSE = 0.0002  # seconds
CORES = sorted(os.sched_getaffinity(0))
QUIET = 0.5  # seconds without a packet, after which the run is over
SO_MEMINFO, MEMINFO = (
    55,
    struct.Struct("=9I"),
)  # asm-generic/socket.h; the first number is the bytes to be read


def main(lanes: int, units: int) -> None:
    """Feed the requested number of units to each lane."""
    tun, opened = open_tun(INTERFACE, queues=lanes), open_underlay([IPv4Address("127.0.0.1")], 0, lanes=lanes)
    for command in (("lo", "up"), (INTERFACE, "up")):
        subprocess.run(["ip", "link", "set", *command], check=True)
    agent, forwarder = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    forwarder.setblocking(False)
    start = link.Start(bytes(32), MTU, True, True, list(map(float, astuple(Timing()))), [CIPHER])
    loop = Loop(LinkEnd(forwarder), clock.now, os.urandom)
    feeders = [fork_feeder(lane, units, opened) for lane in range(lanes)]
    pin(0, 0)
    thread = threading.Thread(target=loop.run, args=(start, tun.descriptors, []), daemon=True)
    thread.start()
    tell(agent, opened)
    port = opened[0].port
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.sendto(hello(lanes), ("127.0.0.1", port))
    time.sleep(0.3)
    for place, task in enumerate(sorted(map(int, os.listdir("/proc/self/task")))[2:], 1):
        pin(task, place)
    before, cpu = written(), used()
    began = moment = time.monotonic()
    for _, go in feeders:
        os.write(go, b"x")
    seen = before
    while time.monotonic() < moment + QUIET:
        time.sleep(0.005)
        if (now := written()) != seen:
            seen, moment = now, time.monotonic()
    for child, _ in feeders:
        os.waitpid(child, 0)
    volume = (seen - before) * len(super_packet()) / 1e9
    print(json.dumps({"rate": volume * 8 / (moment - began), "cpu": (used() - cpu) / volume}), flush=True)
    os._exit(0)


def keypair(lane: int) -> InstallKeypair:
    """Return the peer's end of a lane of the session."""
    index, now = INDEX_MARK << 24 | 0x100, clock.now()
    made = InstallKeypair(
        1, index, index, KEYS[0], KEYS[1], True, now, now, ("127.0.0.1", 9), [(CIPHER, KEYS[2], KEYS[3])]
    )
    return lane_of(made, lane) if lane else made


def tell(agent: socket.socket, opened: list) -> None:  # type: ignore[type-arg]
    """Tell the forwarder about the peer, and the session with it."""
    made = keypair(0)
    theirs = InstallKeypair(
        1, made.remote_index, made.local_index, KEYS[1], KEYS[0], True, made.created, made.created, made.endpoint,
        [(CIPHER, KEYS[3], KEYS[2])],
    )  # fmt: skip
    rows = [link.SocketRow(int(each.family), each.port, int(each.role), lane=each.lane) for each in opened]
    sockets = link.Sockets("wireguard", rows)
    socket.send_fds(agent, [codec.encode(sockets)], [each.fileno() for each in opened])
    for message in (
        link.SetPeer(1, 0.0),
        link.SetEndpoint(1, ("127.0.0.1", 9), "configuration"),
        link.Routes([(bytes([10, 0xF4, 1, 0]), 24, 1)], [], is_last=True),
        theirs,
        link.Begin(),
    ):
        agent.send(codec.encode(message))
    while not isinstance(codec.decode(agent.recv(codec.MESSAGE_BYTES)), link.Ready):
        pass


def hello(lanes: int) -> bytes:
    """Return the message by which the peer announces its number of lanes."""
    said = control.Hello((CIPHER,), 65_555, 255, MTU, is_answer=False, answers_pings=True, lanes=lanes)
    plain, made = control.build(said), keypair(0)
    header = TRANSPORT_HEADER.pack(TYPE_TRANSPORT, made.remote_index, 0)
    return header + ChaCha20Poly1305(made.send_key).encrypt(NONCE(0), plain, None)


def fork_feeder(lane: int, units: int, opened: list) -> tuple[int, int]:  # type: ignore[type-arg]
    """Return a process that feeds a lane, and the descriptor that makes it begin."""
    waiting, go = os.pipe()
    child = os.fork()
    if child:
        return child, go
    pin(0, lane)
    made = keypair(lane)
    key, cutter, packet = UnitKey(CIPHER, made.unit_keys[0][1], made.remote_index), Cutter(), super_packet()
    trains = []
    for _ in range(units):
        parts = cutter.cut(key, GSO_TCPV4, SEGMENT, bytes(packet[:HEADERS]), packet[HEADERS:], MTU + OVERHEAD)
        trains.append([bytes(part) for part in parts])
    sink = next(each.socket for each in opened if each.lane == lane and each.port == opened[0].port)
    control_message = [(SOL_UDP, UDP_SEGMENT, struct.pack("=H", MTU + OVERHEAD))]
    target = "127.0.0.1", opened[0].port
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        os.read(waiting, 1)
        for train in trains:
            while MEMINFO.unpack(sink.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, MEMINFO.size))[0] > FULL:
                time.sleep(PAUSE)
            for part in train:
                udp.sendmsg([part], control_message, 0, target)
    os._exit(0)


def pin(task: int, place: int) -> None:
    """Pin a thread, 0 for this one, to one core, if there are enough."""
    if place < len(CORES):
        os.sched_setaffinity(task, {CORES[place]})


def written() -> int:
    """Return how many packets were written into the tun."""
    lines = Path("/proc/self/net/dev").read_text().splitlines()
    return next(int(line.split()[2]) for line in lines if line.strip().startswith(f"{INTERFACE}:"))


def used() -> float:
    """Return the processor time of this process and of its feeders that have ended."""
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in spent)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]))
