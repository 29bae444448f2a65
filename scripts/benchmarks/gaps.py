"""The longest time that a packet waits in a forwarder with many peers, while it does something for all of them.

A forwarder runs as under its agent, but its device is a socket pair whose other end this program has, and this program
also acts as the agent and as the peers, which have sessions and are all at one address of this host.  A packet goes in
every half millisecond, and the time until its datagram arrives is measured while

- **nothing** happens: the machine's own share,
- **status** is requested: the counters of all peers,
- **sockets** are replaced: every peer is informed where this node is now,
- **keepalives** of all peers are due together,
- **sources**: addresses of the host changed, and each peer's source is chosen again,
- **broadcast**: a frame for everybody comes from the device, which is a tap in this case.

It prints the longest wait of each round, in milliseconds: the median of the rounds, the least and the most.  The time
of arrival is the kernel's, and this program and the forwarder have priority over all others, as far as permitted, so
the result depends on the forwarder alone.
"""

from __future__ import annotations

import array
import contextlib
import dataclasses
import os
import selectors
import socket
import struct
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from overlay.host import clock
from overlay.link import codec
from overlay.link import messages as link
from overlay.session.constants import Timing
from overlay.session.outputs import InstallKeypair
from overlay.wire.messages import KEY_SIZE
from scripts.benchmarks import figures
from scripts.benchmarks.console import fail, say
from scripts.benchmarks.figures import Figures

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

PROGRAM = (sys.executable, "-m", "overlay.forwarding")
USER = 65528  # that the forwarder becomes, as when root starts it
INTERVAL = 0.0005  # seconds between two packets
BEFORE, AFTER = 0.05, 0.3  # seconds of packets before an event, and after its end
LONGEST = 20.0  # seconds at most for any event
KEEPALIVE = 3.0  # seconds
NICE = -15  # before the forwarder, which takes -10
SO_TIMESTAMPNS = 35  # Linux include/uapi/asm-generic/socket.h
BUFFER = 8 * 1024 * 1024
MTU = 1420
MAC = bytes([2, 0, 0, 0, 0, 1])
OTHER = bytes([2, 0, 0, 0, 0, 2])
PLAIN = bytes(10)  # a virtio header without offloads
WATCHED = 1  # the number of the peer whose packets are measured
EVENTS = ("nothing", "status", "sockets", "keepalives", "sources", "broadcast")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this measurement."""
    parser.add_argument("--rounds", type=int, default=9, help="of each kind (default 9)")
    parser.add_argument(
        "--peers", default="10000,50000", help="numbers of peers to measure with (default 10000,50000)"
    )
    parser.add_argument(
        "--beside",
        type=Path,
        help="another checkout with the same messages between agent and forwarder, measured in turns",
    )
    parser.add_argument("--events", default=",".join(EVENTS), help=f"of: {', '.join(EVENTS)}")
    parser.add_argument("--json", type=Path, help="write every measurement to this file")


def run(arguments: argparse.Namespace) -> None:
    """Measure and report."""
    chosen = [name.strip() for name in arguments.events.split(",")]
    for name in chosen:
        if name not in EVENTS:
            fail(f"there is no event {name!r}; choose from {', '.join(EVENTS)}")
    results = Figures("nothing")
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, NICE)
    for count in map(int, arguments.peers.split(",")):
        for is_tap in (False, True):
            events = [name for name in chosen if name == "nothing" or (name == "broadcast") == is_tap]
            if len(events) < 2 and is_tap:
                continue
            kind = f"{count} peers, {'tap' if is_tap else 'tun'}"
            say(kind)
            with ExitStack() as stack:
                benches = {"": stack.enter_context(Bench(Path(), count, is_tap))}
                if arguments.beside is not None:
                    benches["beside: "] = stack.enter_context(Bench(arguments.beside, count, is_tap))
                for _ in range(arguments.rounds):
                    for name in events:
                        for which, bench in benches.items():
                            results.note(
                                f"longest wait, {kind}, ms", which + name, bench.measure(name) * 1000
                            )
    results.show()
    figures.write(arguments.json, vars(arguments), {"results": results.values})


class Bench:
    """One forwarder with *count* peers, and the other ends of its device, link and sockets."""

    def __init__(self, checkout: Path, count: int, is_tap: bool) -> None:
        self._checkout, self._count, self._is_tap, self._serial = checkout, count, is_tap, 0
        self._stack = ExitStack()

    def __enter__(self) -> Bench:
        stack = self._stack
        self._link, theirs = self._pair(socket.SOCK_SEQPACKET)
        self._tun, device = self._pair(socket.SOCK_SEQPACKET)
        self._watched, self._sink = self._udp(), self._udp()
        self._sink.setsockopt(
            socket.SOL_SOCKET, socket.SO_RCVBUF, 0
        )  # nobody reads the datagrams to other peers
        self._watched.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        theirs.setblocking(True)
        process = subprocess.Popen(
            [*PROGRAM, str(theirs.fileno()), str(USER)],
            pass_fds=[theirs.fileno()],
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
            cwd=self._checkout,
        )
        stack.callback(process.wait)
        stack.callback(process.terminate)
        stack.callback(self._link.close)
        theirs.close()
        self._selector = stack.enter_context(selectors.DefaultSelector())
        for each in (self._link, self._watched):
            self._selector.register(each, selectors.EVENT_READ)
        times = list(map(float, dataclasses.astuple(Timing())))
        self._tell(link.Start(bytes(KEY_SIZE), MTU, False, True, times, [], self._is_tap), [device.fileno()])
        device.close()
        self._tell(link.SetNode(MTU, False, [], macs=[MAC] if self._is_tap else []))
        self._use_sockets()
        now = clock.now()
        for number in range(1, self._count + 1):
            at = (self._watched if number == WATCHED else self._sink).getsockname()
            macs = [OTHER] if self._is_tap and number == WATCHED else []
            self._tell(link.SetPeer(number, 0.0, macs=macs))
            self._tell(
                InstallKeypair(number, number, number, bytes(KEY_SIZE), bytes(KEY_SIZE), True, now, now, at)
            )
            self._tell(
                link.Routes(
                    [((10 << 24 | number << 2).to_bytes(4, "big"), 30, number)],
                    [],
                    number % 100 == 0 or number == self._count,
                )
            )
        self._tell(link.Begin())
        self._wait_for(lambda report: isinstance(report, link.Ready))
        time.sleep(1)  # for the forwarder to take over the table
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def measure(self, event: str) -> float:
        """Return the longest time that a packet waited, in seconds, while *event* happened."""
        if event == "keepalives":
            for number in range(1, self._count + 1):
                self._tell(link.SetPeer(number, KEEPALIVE))  # each sends one at once, all within milliseconds
            self._settle()
        waits = self._packets(event)
        if event == "keepalives":
            for number in range(1, self._count + 1):
                self._tell(link.SetPeer(number, 0.0))
        self._settle()
        return waits

    def _packets(self, event: str) -> float:
        """Send packets while *event* happens among them; return the longest wait."""
        began = time.monotonic()
        happens_at, ends_at = began + BEFORE, began + BEFORE + AFTER
        sent: list[float] = []
        arrived, longest, next_at, is_done = 0, 0.0, began, False
        if event == "keepalives":
            ends_at += KEEPALIVE
        while arrived < len(sent) or time.monotonic() < ends_at or not is_done:
            now = time.monotonic()
            if now > began + LONGEST:
                fail(f"{event}: {len(sent) - arrived} packets did not arrive")
            if now >= next_at and now < max(ends_at, happens_at + AFTER if not is_done else 0):
                sent.append(time.time())
                self._tun.send(PLAIN + self._packet(len(sent)))
                next_at = max(now, next_at + INTERVAL)
            if happens_at is not None and now >= happens_at:
                is_done = self._happen(event)
                happens_at = float("inf")
                if not is_done:
                    ends_at = began + LONGEST
            for key, _ in self._selector.select(max(0.0, min(next_at - time.monotonic(), INTERVAL))):
                data, ancillary, _, _ = key.fileobj.recvmsg(codec.MESSAGE_BYTES, 64)  # type: ignore[union-attr]
                if key.fileobj is self._watched:
                    if 40 < len(data) < 200:  # not a keepalive, nor a copy of a broadcast frame
                        seconds, nanoseconds = struct.unpack("qq", ancillary[0][2])
                        longest = max(longest, seconds + nanoseconds / 1e9 - sent[arrived])
                        arrived += 1
                elif data.endswith(b"\xc3"):  # of Counters, the field is_last
                    is_done, ends_at = True, time.monotonic() + AFTER
        return longest

    def _happen(self, event: str) -> bool:
        """Trigger *event*, and return whether its end is not reported."""
        match event:
            case "status":
                self._serial += 1
                self._tell(link.AskCounters(self._serial))
                return False
            case "sockets":
                self._use_sockets()
            case "sources":
                self._tell(link.RenewSources())
            case "broadcast":
                self._tun.send(PLAIN + b"\xff" * 6 + MAC + b"\x88\xb5" + bytes(250))
        return True

    def _packet(self, number: int) -> bytes:
        size = 60
        ip = struct.pack(
            "!BBHHHBBH4s4s", 0x45, 0, size, number & 0xFFFF, 0x4000, 64, 17, 0, b"\x0b\0\0\1", b"\x0a\0\0\5"
        )
        packet = ip + struct.pack("!HHHH", 1000, 1000, size - 20, 0) + bytes(size - 28)
        return OTHER + MAC + b"\x08\x00" + packet if self._is_tap else packet

    def _settle(self) -> None:
        """Wait until the forwarder has carried out all commands."""
        for _ in range(2):
            self._serial += 1
            serial = self._serial
            self._tell(link.AskCounters(serial))
            self._wait_for(
                lambda report, serial=serial: (
                    isinstance(report, link.Counters) and report.serial == serial and report.is_last
                )
            )
        time.sleep(0.2)
        while self._selector.select(0):
            for key, _ in self._selector.select(0):
                key.fileobj.recv(codec.MESSAGE_BYTES)  # type: ignore[union-attr]

    def _wait_for(self, is_wanted: object) -> None:
        deadline = time.monotonic() + LONGEST
        assert callable(is_wanted)
        while time.monotonic() < deadline:
            for key, _ in self._selector.select(0.1):
                data = key.fileobj.recv(codec.MESSAGE_BYTES)  # type: ignore[union-attr]
                if key.fileobj is self._link and is_wanted(codec.decode(data)):
                    return
        fail("the forwarder did not answer")

    def _use_sockets(self) -> None:
        udp = self._udp()
        udp.setsockopt(socket.IPPROTO_IP, 8, 1)  # IP_PKTINFO
        self._tell(
            link.Sockets("wireguard", [link.SocketRow(int(socket.AF_INET), udp.getsockname()[1])]),
            [udp.fileno()],
        )
        udp.close()

    def _tell(self, command: link.Command, descriptors: Sequence[int] = ()) -> None:
        rights = array.array("i", descriptors)
        data, deadline = codec.encode(command), time.monotonic() + LONGEST
        while time.monotonic() < deadline:
            try:
                self._link.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if rights else [])
            except BlockingIOError:
                time.sleep(0.001)
            else:
                return
        fail("the forwarder does not accept commands")

    def _pair(self, kind: int) -> tuple[socket.socket, socket.socket]:
        pair = socket.socketpair(socket.AF_UNIX, kind)
        for end in pair:
            end.setblocking(False)
            self._stack.callback(end.close)
            for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                end.setsockopt(socket.SOL_SOCKET, option, BUFFER)
        return pair

    def _udp(self) -> socket.socket:
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._stack.callback(udp.close)
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        udp.bind(("127.0.0.1", 0))
        return udp
