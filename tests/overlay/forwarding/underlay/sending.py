"""Senders over sockets that are simulated."""

from __future__ import annotations

import errno
import socket
import struct

from overlay.forwarding.peer import LivePeer
from overlay.forwarding.underlay.sender import Sender
from overlay.forwarding.underlay.udp_socket import UdpSocket
from overlay.linux import SOL_UDP, UDP_SEGMENT

TOS_2 = (socket.IPPROTO_IP, socket.IP_TOS, struct.pack("=i", 2))
V4, V6 = ("192.0.2.1", 51820), ("2001:db8::1", 51820, 0, 0)
SOURCE = [(socket.IPPROTO_IP, 8, struct.pack("=I4s4s", 0, b"\xc0\0\2\7", bytes(4)))]


class FakeRaw:
    """A socket that accepts sends, cut into datagrams, or fails as told: an errno for each send, None for success."""

    def __init__(self, *errors):
        self.errors, self.calls, self.datagrams = list(errors), [], []
        self.always = None

    def fileno(self):
        return 3

    def close(self):
        pass

    def sendmsg(self, buffers, control, flags, address):
        assert flags == 0
        data = b"".join(buffers)
        segments = [value for level, kind, value in control if (level, kind) == (SOL_UDP, UDP_SEGMENT)]
        others = [each for each in control if each[:2] != (SOL_UDP, UDP_SEGMENT)]
        size = struct.unpack("=H", segments[0])[0] if segments else None
        self.calls.append((len(data), size, others, address))
        code = self.errors.pop(0) if self.errors else self.always
        if callable(code):
            code = code(size, others)
        if code:
            raise OSError(code, errno.errorcode[code])
        self.datagrams += [
            data[at : at + (size or len(data))] for at in range(0, len(data), size or len(data))
        ]
        return len(data)


def peer_at(endpoint=V4):
    peer = LivePeer(1)
    peer.move(endpoint)
    return peer


def made(*errors, segments=True):
    """Return a sender over one IPv4 socket that fails as told, the socket, and a peer."""
    raw, sender = FakeRaw(*errors), Sender(segments)
    sender.sockets.append(UdpSocket(raw, socket.AF_INET))
    return sender, raw, peer_at()


def train(count=4, size=100, last=None, mark=b"."):
    """Return datagrams as outbound seals them: a view for each."""
    return [
        memoryview(mark + bytes([number]) * ((last if last and number == count - 1 else size) - 1))
        for number in range(count)
    ]
