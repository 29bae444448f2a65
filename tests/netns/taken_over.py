"""A forwarder under an attacker's control: ``taken_over.py ATTACK DESCRIPTOR UID``, in place of the real one.

It begins as that does: it gives its privileges up, confines itself, and takes what the agent hands it.  When the agent
says that it may begin, it says that it is ready and does what ATTACK names.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import itertools
import math
import os
import signal
import socket
import struct
import sys
import time

import msgpack

from overlay.crypto.cookies import CookieHolder
from overlay.errors import PacketError
from overlay.forwarding.loop import LinkEnd
from overlay.host.process import seccomp
from overlay.host.process.privileges import drop_all
from overlay.link.codec import MESSAGES, encode
from overlay.link.messages import (
    OWN,
    Begin,
    Confirmed,
    ControlReceived,
    Counters,
    Handshake,
    Moved,
    PeerCounters,
    Ponged,
    Ready,
    Retired,
    SessionWanted,
    SetNode,
    Silence,
    Sockets,
)
from overlay.link.service_messages import (
    FlowRow,
    Flows,
    Pinned,
    ServerCounters,
    ServiceCounters,
    ServiceTotals,
)
from overlay.services.directors import group_number
from overlay.wire import control
from overlay.wire.control import Presence
from overlay.wire.messages import INITIATION
from overlay.wire.service_control import (
    FlowsTold,
    SettingRow,
    SettingsHeard,
    SettingsTold,
    StandingRow,
    StandingsTold,
)

ELSEWHERE = {socket.AF_INET: ("192.0.2.254", 9), socket.AF_INET6: ("2001:db8::fe", 9)}
SOURCE = ("203.0.113.9", 4500)


class TakenOver:
    """What it has: the link, the tun, the sockets."""

    def __init__(self, link: socket.socket) -> None:
        self.link, self.end = link, LinkEnd(link)
        self.tun = -1
        self.public_key = b""
        self.sockets: list[socket.socket] = []

    def begin(self) -> None:
        """Accept everything until the agent says that this is all, and report that this is ready."""
        start, descriptors = self.end.wait()
        self.public_key, self.tun = start.public_key, descriptors[0]
        while True:
            try:
                message, descriptors = self.end.wait()
            except PacketError:
                continue
            if isinstance(message, SetNode | Sockets):
                self.sockets += [socket.socket(fileno=each) for each in descriptors]
            if isinstance(message, Begin):
                self.say(Ready([]))
                return

    def say(self, *reports: object) -> None:
        """Report, waiting while the link is full."""
        for report in reports:
            self.send(encode(report))

    def send(self, data: bytes, ancillary=()) -> None:
        """Send one message of any bytes."""
        while True:
            try:
                self.link.sendmsg([data], ancillary)
            except BlockingIOError:
                time.sleep(0.001)
            except OSError:
                os._exit(0)  # the agent has ended the link
            else:
                return

    # Attacks on what it shares with its successor

    def unfinished(self) -> None:
        """On each socket, begin a datagram to which everything that is sent later is added."""
        for each in self.sockets:
            with contextlib.suppress(OSError):
                each.sendto(bytes(64), socket.MSG_MORE, ELSEWHERE[each.family])

    def connected(self) -> None:
        """Connect the sockets elsewhere: without a filter of system calls this succeeds, with one it is refused."""
        for each in self.sockets:
            with contextlib.suppress(OSError):
                each.connect(ELSEWHERE[each.family])

    def everything(self) -> None:
        """Do what a forwarder without a filter of system calls can do: none of it may affect a later one."""
        self.unfinished()
        nothing = struct.pack("=HBBI", 0x06, 0, 0, 0)
        program = array.array("B", nothing)
        for each in self.sockets:
            for change in (
                lambda each=each: each.setsockopt(
                    socket.SOL_SOCKET, 26, struct.pack("@HP", 1, program.buffer_info()[0])
                ),
                lambda each=each: each.setsockopt(socket.SOL_SOCKET, 44, 1),  # SO_LOCK_FILTER
                lambda each=each: each.connect(ELSEWHERE[each.family]),
                lambda each=each: each.shutdown(socket.SHUT_RDWR),
                lambda each=each: os.set_blocking(each.fileno(), True),
            ):
                with contextlib.suppress(OSError):
                    change()
        for request, argument in (
            (0x400454D8, struct.pack("i", 64)),  # TUNSETVNETHDRSZ
            (0x400454DC, struct.pack("i", 0)),  # TUNSETVNETLE
            (0x400454D0, 0),  # TUNSETOFFLOAD
            (0x400454D4, struct.pack("i", 1)),  # TUNSETSNDBUF
        ):
            fcntl.ioctl(self.tun, request, argument)
        fcntl.fcntl(self.tun, fcntl.F_SETFL, os.O_RDWR | os.O_ASYNC)

    # Attacks with reports

    def reports(self) -> None:
        """Report the same few things forever."""
        while True:
            self.say(Silence(1, False), Silence(1, True), SessionWanted(1), Confirmed(1, 7), Retired(7))
            self.say(Moved(1, SOURCE), Ponged(OWN, 1, 0.1))

    def places(self) -> None:
        """Report that each peer is somewhere else every time, as often as an honest forwarder may."""
        for number in itertools.count():
            self.say(*[Moved(peer, ("203.0.113.9", number % 60_000 + 1)) for peer in (1, 2)])
            time.sleep(0.004)

    def counters(self) -> None:
        """Report the largest messages there are."""
        row = PeerCounters(1, ("2001:db8::1", 1, 0, 0), *[2**62] * 4, 1e9, {})
        data = encode(Counters(1, [row] * 1000, {}, False))
        while True:
            self.send(data)

    def handshakes(self) -> None:
        """Report handshakes of no real host, each of which costs the agent a computation."""
        holder = CookieHolder(self.public_key)
        made = []
        for number in range(200):
            body = INITIATION.pack(1, number, os.urandom(32), bytes(48), bytes(28), bytes(16), bytes(16))
            made.append(encode(Handshake(holder.add_macs(body, 0.0), ("203.0.113.9", number + 1))))
        for data in itertools.cycle(made):
            self.send(data)

    def services(self) -> None:
        """Report on services: answers to no question, unknown numbers, and messages of silent peers."""
        nobody = 2**63 - 1
        counted = [ServerCounters(nobody, -1, *[-(2**63)] * 5)] * 60
        totals = [ServiceTotals(nobody, -1, 2**63 - 1, -5, {"no such reason": -1})] * 60
        flow = FlowRow(255, b"\xff" * 16, 65535, bytes(4), 0, 255, nobody, math.inf, -math.inf)
        told: list[object] = [
            *[Pinned(serial, list(range(60))) for serial in range(-3, 60)],
            *[
                ServiceCounters(serial, math.nan, counted, totals, {"": 2**63 - 1}, False)
                for serial in range(-3, 60)
            ],
            *[Flows(serial, [flow] * 60, serial % 2 == 0, nobody) for serial in range(-3, 60)],
        ]
        group = group_number(("paris", "tokyo"))
        row = SettingRow(0, 2**64 - 1, 65535, True, True)
        said = [
            control.build(message)
            for message in (
                Presence(group, True, (0, 1, 15)),
                SettingsTold(group, 1, (row,)),
                SettingsHeard(group, 2**64 - 1),
                StandingsTold(group, 2**64 - 1, (StandingRow(0, 255, 65535, 2**32 - 1),)),
                FlowsTold(0, (), wants_all=True),
            )
        ]
        said += [b"\x80", b"\x90", b"\xff" * 1000, *(each[:-1] for each in said)]
        told += [ControlReceived(peer, payload) for peer in (OWN, 1, 2, nobody) for payload in said]
        for report in itertools.chain(told, itertools.cycle(told)):
            with contextlib.suppress(ValueError, OverflowError):
                self.say(report)

    def nested(self) -> None:
        """Send messages of nested lists, each of which claims to be as long as the whole message."""
        deep = b"\xdd\x00\x01\xff\xff" * 1000
        while True:
            self.send(deep.ljust(131_072, b"\x90"))
            self.send(b"\xdf\x00\x01\xff\xff" * 1000 + bytes(126_072))
            self.send(b"\x91" * 100_000)

    def halves(self) -> None:
        """Send every prefix of messages, and one that is too large."""
        whole = [encode(SessionWanted(1)), encode(Handshake(bytes(148), SOURCE)), encode(Ponged(1, 1, None))]
        for data in itertools.islice(itertools.cycle(whole), 5000):
            self.send(data[: 1 + os.getpid() % len(data)])
        self.send(b"\xff" * 1_000_000)
        for number in range(len(MESSAGES) + 3):
            self.send(msgpack.packb([number, *[2**64 - 1] * 5]))
        self.deaf()

    def descriptors(self) -> None:
        """Pass all descriptors to the agent, again and again."""
        every = array.array("i", [*(each.fileno() for each in self.sockets), self.tun, self.link.fileno()])
        for _ in range(2000):
            self.send(encode(SessionWanted(1)), [(socket.SOL_SOCKET, socket.SCM_RIGHTS, every)])
        self.deaf()

    # Attacks by doing nothing

    def deaf(self) -> None:
        """Stop reading, and keep running whatever happens."""
        while True:
            time.sleep(1)

    def brief(self) -> None:
        """Exit immediately."""


def main() -> None:
    """Run until the attack is over."""
    attack, descriptor, uid = sys.argv[1:]
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    link = socket.socket(fileno=int(descriptor))
    link.setblocking(False)
    drop_all(int(uid), os.getppid())
    if attack != "everything":
        assert seccomp.confine() == []
    taken_over = TakenOver(link)
    taken_over.begin()
    getattr(taken_over, attack)()
    os._exit(0)


if __name__ == "__main__":
    main()
