"""Messages between agent and forwarder, and between a command and the agent."""

from __future__ import annotations

import contextlib

from overlay.encap.encapsulation import Ends
from overlay.errors import PacketError
from overlay.host import control
from overlay.link import codec, messages


def link(data):
    with contextlib.suppress(PacketError):
        message = codec.decode(data)
        assert codec.decode(codec.encode(message)) == message


def seeds():
    yield codec.encode(messages.Ready([]))
    yield codec.encode(messages.SetPeer(1, 25.0, "vxlan", [(bytes(4), 32)], Ends(7)))
    yield codec.encode(messages.SetEndpoint(1, ("192.0.2.1", 51820), "configuration"))
    yield codec.encode(messages.SetEndpoint(1, ("fe80::1", 51820, 0, 2), "configuration"))
    yield codec.encode(messages.Routes([(bytes(4), 8, 1)], [(bytes(16), 64)], is_last=True))
    yield codec.encode(messages.Handled(1))


def requests(data):
    with contextlib.suppress(ValueError):
        message = control.decode(data + b"\n")
        assert control.decode(control.encode(message)) == message or message != message


def request_seeds():
    for message in ({"op": "status"}, {"op": "ping", "peer": "berlin"}, {"op": "peer", "peer": "10.0.0.1"}):
        yield control.encode(message)[:-1]
