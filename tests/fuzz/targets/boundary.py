"""The boundary between Python and the compiled path: every call with any arguments returns or raises."""

from __future__ import annotations

import math

from overlay.forwarding import native
from overlay.forwarding.peer import LivePeer

REFUSALS = (
    TypeError, ValueError, OverflowError, LookupError, AttributeError, RuntimeError, BufferError, OSError, MemoryError
)  # fmt: skip
MOST_CALLS = 200
BUFFER = 512 * 1024  # more than a lane needs
VALUES = (
    None, True, -1, 0, 1, 2, 4, 7, 63, 64, 255, 256, 65_535, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63, -(2**63),
    2**64 - 1, 2**64, 0.0, 1.5, -1.0, math.inf, math.nan, "", "text", b"", b"x", bytes(4), bytes(6), bytes(12), bytes(13),
    bytes(16), bytes(32), bytes(36), bytes(37), bytes(38), bytes(1500), bytes(70_000), [], [None], (), (1, 2), {},
)  # fmt: skip
# What the parameters of a call are, so that calls get past the look at their types: a number, a time, bytes, a writable
# buffer, True or False, or an object of a type
SIGNATURES = {
    "check": "n", "accept": "n", "mark": "n", "accept_run": "nn", "spread_over": "l", "_near": "nnbb", "_leaves_by": "nU",
    "_seals": "nb", "_opens": "nb", "_keys": "nnbb", "move": "bnnn", "set": "nnnyyyy", "drain_tun": "t", "drain_udp": "Utn",
    "drain_raw": "Ut", "flush": "P", "took": "n", "remember": "bP", "place": "Knnnty", "put": "nnbnny", "take": "n",
    "remember_virtual": "b", "remember_flow": "bwwnS", "forget_flow": "b", "admit": "Pb", "locate": "Pbnny", "unlocate": "P",
    "list": "K", "unlist": "K",
}  # fmt: skip
# They need threads, or ask the kernel about this process's memory.
LEFT_OUT = {"Workers", "Poll"}


class Lie:
    """A device and a socket that return what they are given, and accept everything."""

    def __init__(self, data):
        self._data = data

    def readinto(self, view):
        size = min(len(view), len(self._data))
        view[:size] = self._data[:size]
        data, self._data = self._data, b""
        return size if data else None

    def recvmsg_into(self, views, *_):
        size = self.readinto(views[0])
        if size is None:
            raise BlockingIOError
        return size, [], 0, ("192.0.2.1", 7)

    def write(self, buffers):
        return sum(map(len, buffers))

    def sendmsg(self, buffers, *_):
        return self.write(buffers)

    def send_many(self, packets, *_):
        return len(packets)

    def receive_many(self, _):
        raise BlockingIOError


def _kinds():
    return [
        kind
        for name, kind in sorted(vars(native.core).items())
        if isinstance(kind, type) and name not in LEFT_OUT
    ]


def _lane():
    core = native.core
    buffers = [bytearray(BUFFER) for _ in range(3)]
    lane = core.Lane(*buffers, core.BatchingState(), 1)
    lane.simulate({number: Lie(bytes([number % 256]) * 100) for number in VALUES if type(number) is int})
    return lane


def calls(data):
    """Make the calls that *data* encodes: four bytes choose the object and its attribute,\n    and
    those of arguments.
    """
    if native.core is None:
        return
    objects = [_lane(), *(kind() for kind in _kinds() if kind is not native.core.Lane)]
    peer = LivePeer(1)
    objects += [peer.state, peer.traffic]
    writable = [bytearray(8), bytearray(4096)]
    values = [*VALUES, *objects, *writable]
    by_type = {
        "n": [each for each in VALUES if type(each) is int],
        "t": [each for each in VALUES if type(each) is float],
        "b": [each for each in VALUES if type(each) is bytes],
        "y": [False, True],
        "w": writable,
        "l": [[each for each in objects if isinstance(each, native.core.UdpSocketState)] * 2, []],
        "U": [each for each in objects if isinstance(each, native.core.UdpSocketState)],
        "P": [each for each in objects if isinstance(each, native.core.PeerState)],
        "K": [each for each in objects if isinstance(each, native.core.KeypairState)],
        "S": [each for each in objects if isinstance(each, native.core.ServerState)],
    }
    at = made = 0
    while at + 2 < len(data) and made < MOST_CALLS:
        thing = objects[data[at] % len(objects)]
        names = [
            name
            for name in dir(type(thing))
            if name[0] != "_" or name in {"__init__", "_near", "_leaves_by", "_stand"}
        ]
        names = [name for name in names if name != "simulate"]
        name, count = names[data[at + 1] % len(names)], data[at + 2] % 12
        kinds = SIGNATURES.get(name, "") if data[at + 2] & 0x80 else ""
        count = len(kinds) or count
        among = [by_type[kind] for kind in kinds] or [values] * count
        chosen = [
            each[number % len(each)]
            for each, number in zip(among, data[at + 3 : at + 3 + count], strict=False)
        ]
        at += 3 + count
        made += 1
        try:
            found = getattr(thing, name)
            if callable(found):
                found(*chosen)
            elif chosen:
                setattr(thing, name, chosen[0])
        except REFUSALS:
            continue


def seeds():
    yield bytes(range(256))
    for start in range(8):
        yield bytes((start + at * 37) % 256 for at in range(400))
