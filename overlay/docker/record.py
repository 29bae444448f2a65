"""What the driver must remember over a restart, because Docker reports everything once.

Networks are remembered as long as Docker remembers them, even over reboots; published ports as long as their containers
run.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any

from overlay.docker.calls import IDENTIFIER, PROTOCOLS, NewNetwork, Published

if TYPE_CHECKING:
    from overlay.host.plan import IPAddress

# Ours
RECORD_SIZE = 4 * 1024 * 1024  # bytes
MOST_NETWORKS = 4096
MOST_ENDPOINTS = 16_384


@dataclass(frozen=True, slots=True)
class DockerEndpoint:
    """A container's place in a network: its addresses, and the ports that are published for it."""

    network: str
    addresses: tuple[IPAddress, ...]
    mac: str | None = None
    published: tuple[Published, ...] = ()


@dataclass(slots=True)
class Networks:
    """The networks by their ids."""

    by_id: dict[str, NewNetwork] = field(default_factory=dict)

    def encode(self) -> bytes:
        """Return what decode() reads."""
        rows = [
            [each.identifier, list(map(str, each.pools)), each.mtu, each.is_internal]
            for each in self.by_id.values()
        ]
        return json.dumps({"networks": rows}, separators=(",", ":")).encode()

    @classmethod
    def decode(cls, data: bytes) -> Networks:
        """Read what encode() made.  Raises ValueError, and nothing else, for any other bytes."""
        found = cls()
        for row in _rows(data, "networks", MOST_NETWORKS):
            match row:
                case [str(identifier), [*pools], None | int() as mtu, bool(is_internal)] if (
                    IDENTIFIER.fullmatch(identifier)
                    and type(mtu) is not bool
                    and all(isinstance(p, str) for p in pools)
                ):
                    found.by_id[identifier] = NewNetwork(
                        identifier, tuple(map(ip_network, pools)), mtu, is_internal
                    )
                case _:
                    raise ValueError("not a network")
        return found


@dataclass(slots=True)
class Endpoints:
    """The endpoints by their ids, of one boot."""

    by_id: dict[str, DockerEndpoint] = field(default_factory=dict)

    def encode(self, boot: str) -> bytes:
        """Return a record for decode(); *boot* names the boot and the namespace to which it applies."""
        rows = [
            [
                identifier,
                each.network,
                list(map(str, each.addresses)),
                each.mac,
                [[port.protocol, port.host_port, port.port, port.host] for port in each.published],
            ]
            for identifier, each in self.by_id.items()
        ]
        return json.dumps({"boot": boot, "endpoints": rows}, separators=(",", ":")).encode()

    @classmethod
    def decode(cls, data: bytes, boot: str) -> Endpoints:
        """Read a record that encode() made; a record of another boot counts as empty.

        Raises ValueError, and nothing else, for other bytes.
        """
        rows = _rows(data, "endpoints", MOST_ENDPOINTS)
        if json.loads(data).get("boot") != boot:
            return cls()
        found = cls()
        for row in rows:
            match row:
                case [str(identifier), str(network), [*addresses], None | str() as mac, [*ports]] if (
                    IDENTIFIER.fullmatch(identifier)
                    and IDENTIFIER.fullmatch(network)
                    and all(isinstance(each, str) for each in addresses)
                ):
                    found.by_id[identifier] = DockerEndpoint(
                        network, tuple(map(ip_address, addresses)), mac, tuple(map(_read_port, ports))
                    )
                case _:
                    raise ValueError("not an endpoint")
        return found


def _read_port(row: Any) -> Published:
    match row:
        case [str(protocol), int(host_port), int(port), str(host)] if protocol in PROTOCOLS.values():
            if host:
                ip_address(host)
            if all(type(each) is int and 0 < each <= 65535 for each in (host_port, port)):
                return Published(protocol, host_port, port, host)
    raise ValueError("not a port")


def _rows(data: bytes, key: str, most: int) -> list[Any]:
    if len(data) > RECORD_SIZE:
        raise ValueError("too long")
    try:
        record = json.loads(data)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    rows = record.get(key) if isinstance(record, dict) else None
    if not isinstance(rows, list) or len(rows) > most:
        raise ValueError("not what encode() makes")
    return rows
