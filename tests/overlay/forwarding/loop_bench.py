"""A loop of the forwarder between real sockets and a stand-in for a tun."""

from __future__ import annotations

import array
import dataclasses
import os
import select
import socket
import threading
import time

from overlay.forwarding.loop import LinkEnd, Loop
from overlay.host import clock
from overlay.host.sockets.socket_options import enlarge
from overlay.link import codec
from overlay.link import messages as link
from overlay.linux import SO_SNDBUFFORCE
from overlay.session.constants import Timing
from overlay.session.outputs import InstallKeypair
from overlay.wire.bulk import AES_256_GCM, CHACHA20_POLY1305
from tests import packets

CIPHERS = [AES_256_GCM, CHACHA20_POLY1305]
PATIENCE = 60.0  # seconds; a test that waits this long has failed


def socket_pair(size=None):
    pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in pair:
        end.setblocking(False)
        if size:
            make_room(end, size)
    return pair


def make_room(end, size):
    """Let *size* bytes wait for the other end, however little this host allows to whom is not root."""
    enlarge(end, SO_SNDBUFFORCE, socket.SO_SNDBUF, size)


class Running:
    """A loop in a thread: its link, the other end of its tun, and its UDP socket."""

    def __init__(self, timing=None):
        self.link, theirs = socket_pair()
        self.tun, device = socket_pair()
        self.udp = [self._bound()]
        start = link.Start(
            bytes(32), 1420, True, True, list(dataclasses.astuple(timing or Timing())), CIPHERS
        )
        self.later = 0.0  # seconds by which its clock is ahead
        self.loop = Loop(LinkEnd(theirs), lambda: clock.now() + self.later, os.urandom)
        self.error = None
        self.turns = 0
        turn = self.loop._turn

        def counted():
            self.turns += 1
            turn()

        self.loop._turn = counted
        self._held = [theirs, device]
        self.thread = threading.Thread(target=self._run, args=(start, self._queues(device)))
        self.thread.start()
        self.use_sockets()
        self.tell(link.SetNode(1420, False, []))

    def _run(self, start, descriptors):
        try:
            self.loop.run(start, descriptors, ["a note"])
        except BaseException as error:  # noqa: BLE001  it belongs to the test
            self.error = error

    def _queues(self, device):
        """Return the descriptors of the tun: one that is read and written to."""
        return [device.detach()]

    @staticmethod
    def _bound():
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        udp.setsockopt(socket.IPPROTO_IP, 8, 1)  # IP_PKTINFO
        udp.setsockopt(17, 104, 1)  # UDP_GRO
        udp.bind(("127.0.0.1", 0))
        return udp

    @property
    def address(self):
        return self.udp[-1].getsockname()

    def move(self):
        self.udp.append(self._bound())
        self.use_sockets()

    def use_sockets(self):
        self.tell(link.Sockets("wireguard", [link.SocketRow(2, self.address[1])]), [self.udp[-1].fileno()])

    def tell(self, command, descriptors=()):
        rights = (
            [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        )
        assert select.select([], [self.link], [], PATIENCE)[1]
        self.link.sendmsg([codec.encode(command)], rights)

    def hear(self):
        assert select.select([self.link], [], [], PATIENCE)[0]
        return codec.decode(self.link.recv(codec.MESSAGE_BYTES))

    def counters(self):
        """Request the counters and wait for them: all earlier commands have then been carried out."""
        self.tell(link.AskCounters(1))
        while not isinstance(report := self.hear(), link.Counters):
            pass
        return report

    def write(self, packet, virtio=packets.PLAIN):
        self.tun.send(virtio + packet)

    def read(self):
        assert select.select([self.tun], [], [], PATIENCE)[0]
        data = self.tun.recv(70_000)
        return packets.kernel_segments(data[10:], data[:10])

    def close(self):
        self.link.close()
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive()
        loop = self.loop  # a real process would end here
        held = [udp.raw for udp in loop._core.sender.sockets]
        for each in (self.tun, *self.udp, *self._held, *held, loop._tun._file, loop._poll):
            each.close()


def connect(*pair):
    """Make a session between two loops, with keys that no handshake made."""
    keys = b"1" * 32, b"2" * 32
    for number, (one, other) in enumerate((pair, pair[::-1])):
        one.tell(link.SetPeer(1, 0.0))
        one.tell(link.SetEndpoint(1, other.address, "configuration"))
        one.tell(link.Routes([(bytes([10, 0, 0, 0]), 8, 1)], [], is_last=True))
        send, receive = keys[number], keys[1 - number]
        made = InstallKeypair(1, 7, 7, send, receive, True, clock.now(), clock.now(), other.address)
        one.tell(made)
        one.tell(link.Begin())
        one.counters()


def until_asleep(*loops):
    """Wait until *loops* sleep: on a busy machine, work under way may still end, but a busy loop never does."""

    def sleep():
        before = [each.turns for each in loops]
        threading.Event().wait(0.2)
        return all(
            each.turns <= then + 1 for each, then in zip(loops, before, strict=True)
        )  # the one it sleeps in

    until(sleep)


def until(condition):
    """Wait until *condition* holds, leaving the processor to others in between."""
    ends = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < ends
        threading.Event().wait(0.02)
