"""Enough of DHCP for a lease (RFC 2131, RFC 2132): one server with one address, and one client, a socket each."""

from __future__ import annotations

import contextlib
import socket
import struct
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

from tests.netns.topology import PATIENCE, wait_until

if TYPE_CHECKING:
    from tests.netns.topology import Namespace

MESSAGE = struct.Struct("!BBBBIHH4s4s4s4s16s192x4s")  # RFC 2131 figure 1, and the magic cookie of section 3
COOKIE = bytes([99, 130, 83, 99])
BROADCAST_FLAG = 0x8000  # broadcast the answer: the client has no address yet
DISCOVER, OFFER, REQUEST, ACK = 1, 2, 3, 5
SERVER_PORT, CLIENT_PORT = 67, 68
SERIAL = 0x5EED


def lease(client: Namespace, server: Namespace, address: str, interface: str = "eth0") -> str:
    """Return the address that *client*, which has none yet, gets from *server*, which offers *address*."""
    mac = bytes.fromhex(client.run("cat", f"/sys/class/net/{interface}/address").strip().replace(":", ""))
    with _open(client, interface, CLIENT_PORT) as near, _open(server, interface, SERVER_PORT) as far:
        given = b""
        for asked, answered in ((DISCOVER, OFFER), (REQUEST, ACK)):
            # The first request may meet a handshake; a client repeats requests that get no answer.
            heard: list[bytes] = []
            wait_until(
                lambda asked=asked, heard=heard, given=given: _ask(near, far, asked, mac, given, heard),
                what="the server to hear",
            )
            _send(far, CLIENT_PORT, 2, answered, mac, IPv4Address(address).packed)
            message = near.recv(1500)
            kind, given = message[242], message[16:20]
            assert (message[28:34], kind) == (mac, answered)
    return str(IPv4Address(given))


def _ask(
    near: socket.socket, far: socket.socket, kind: int, mac: bytes, given: bytes, heard: list[bytes]
) -> bool:
    _send(near, SERVER_PORT, 1, kind, mac, given or bytes(4))
    far.settimeout(1)
    with contextlib.suppress(TimeoutError):
        while not heard or heard[-1][242] != kind:
            heard.append(far.recv(1500))
        return True
    return False


def _open(namespace: Namespace, interface: str, port: int) -> socket.socket:
    with namespace.entered():
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        udp.bind(("", port))
        udp.settimeout(PATIENCE)
        return udp


def _send(udp: socket.socket, port: int, operation: int, kind: int, mac: bytes, address: bytes) -> None:
    header = (operation, 1, 6, 0, SERIAL, 0, BROADCAST_FLAG)
    message = MESSAGE.pack(*header, bytes(4), address, bytes(4), bytes(4), mac, COOKIE)
    udp.sendto(message + bytes([53, 1, kind, 255]), ("255.255.255.255", port))
