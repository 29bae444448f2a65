"""WireGuard as a library: peers without sockets, threads or clocks, for a test, a scanner or a honeypot.

    device = Device(PrivateKey.generate(os.urandom))
    device.add_peer(public_key, endpoint=("192.0.2.1", 51820))
    for event in device.send(public_key, packet, now):
        match event:
            case Datagram(data, endpoint): ...    # send it by UDP
            case Packet(peer, payload): ...       # what a peer sent through the tunnel

A Device takes received datagrams and the time, and returns what should happen. docs/library.md has complete programs
for asyncio and trio.  It needs no privileges, and loads neither trio nor numpy.

The names exported here are stable: within a major version of this package no name is removed, no parameter and no field
changes its meaning or position, and new ones have defaults.  A minor version may add classes of events: end a ``match``
with ``case _: pass``.  Everything else in this package may change at any time.
"""

from overlay.crypto.keys import PresharedKey, PrivateKey, decode_key, encode_key
from overlay.errors import PacketError
from overlay.session.constants import Timing
from overlay.wireguard.device import Device
from overlay.wireguard.echo import echo_reply, echo_request
from overlay.wireguard.events import Datagram, Event, Lost, Packet, Refused, Up

__all__ = [
    "Datagram",
    "Device",
    "Event",
    "Lost",
    "Packet",
    "PacketError",
    "PresharedKey",
    "PrivateKey",
    "Refused",
    "Timing",
    "Up",
    "decode_key",
    "echo_reply",
    "echo_request",
    "encode_key",
]
