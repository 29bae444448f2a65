"""A flow as bytes: the key of tables of flows, and the name of a flow between agent and forwarder.

Both addresses, the client's and the virtual one, then both ports in the same order.  For a protocol other than TCP, its
number follows: most flows are TCP, and their key is a slice of the packet.
"""

from __future__ import annotations

from overlay.wire.ip import PROTOCOL_TCP

SIZES = (12, 13, 36, 37)
"""The sizes of keys: of IPv4 and IPv6, for TCP and for other protocols."""


def flow_key(protocol: int, client: bytes, port: int, address: bytes, address_port: int) -> bytes:
    """Return the key of a flow; for ICMP *port* is the identifier of an echo, and *address_port* 0."""
    suffix = b"" if protocol == PROTOCOL_TCP else bytes([protocol])
    return client + address + port.to_bytes(2, "big") + address_port.to_bytes(2, "big") + suffix


def parse_flow_key(key: bytes) -> tuple[int, bytes, int, bytes, int]:
    """Return the arguments of flow_key() for *key*, which has one of SIZES."""
    half = 4 if len(key) < SIZES[2] else 16
    ports = 2 * half
    return (
        key[ports + 4] if len(key) > ports + 4 else PROTOCOL_TCP,
        key[:half],
        int.from_bytes(key[ports : ports + 2], "big"),
        key[half:ports],
        int.from_bytes(key[ports + 2 : ports + 4], "big"),
    )
