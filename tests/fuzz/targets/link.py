"""What passes between agent and forwarder, and between a command and the agent."""

from __future__ import annotations

import contextlib

from overlay import link as link_messages
from overlay.errors import PacketError
from overlay.host import control


def link(data):
    with contextlib.suppress(PacketError):
        message = link_messages.decode(data)
        assert link_messages.decode(link_messages.encode(message)) == message


def seeds():
    yield link_messages.encode(link_messages.Ready([]))
    yield link_messages.encode(
        link_messages.SetPeer(1, 25.0, "vxlan", [(bytes(4), 32)], 7, bytes(6), bytes(6))
    )
    yield link_messages.encode(link_messages.SetEndpoint(1, ("192.0.2.1", 51820), "configuration"))
    yield link_messages.encode(link_messages.SetEndpoint(1, ("fe80::1", 51820, 0, 2), "configuration"))
    yield link_messages.encode(link_messages.Routes([(bytes(4), 8, 1)], [(bytes(16), 64)], is_last=True))
    yield link_messages.encode(link_messages.Handled(1))


def requests(data):
    with contextlib.suppress(ValueError):
        message = control.decode(data + b"\n")
        assert control.decode(control.encode(message)) == message or message != message


def request_seeds():
    for message in ({"op": "status"}, {"op": "ping", "peer": "berlin"}, {"op": "peer", "peer": "10.0.0.1"}):
        yield control.encode(message)[:-1]
