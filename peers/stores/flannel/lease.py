"""The keys and values of flannel's leases, in flanneld's literal form (flannel-io/flannel pkg/subnet, pkg/lease).

PREFIX/subnets/10.5.52.0-24 has
{"PublicIP":"192.0.2.11","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"aa:bb:cc:dd:ee:ff"}}

An overlay agent adds the member ``Overlay``, which flanneld ignores: its name, public key and instance.  Two agents
recognize each other by it, and the tunnel between them is encrypted whatever the backend is.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING, Any

from peers.encapsulation import UDP, WIREGUARD
from peers.errors import StoreError
from peers.mac import format_mac, parse_mac
from peers.peer import PEER_NAME, format_public_key, parse_public_key
from peers.stores.etcd.layout import INSTANCE, MalformedError, format_subnet, parse_json, parse_subnet
from peers.stores.flannel.config import VXLAN

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from peers.stores.etcd.location import EtcdLocation

# Specification
DEFAULT_PREFIX = "coreos.com/network"
DUAL = re.compile(r"([^&]+)&[0-9a-f:-]+-\d+")  # with an IPv6 subnet behind the IPv4 one
AGENT = "overlay"

# Ours
MOST_PATH = 128  # characters; it is a part of a file name


def locate(location: EtcdLocation) -> EtcdLocation:
    """Return where flannel's keys are, which without a path is where flanneld has them.  Raises StoreError."""
    path = "/".join(part for part in location.path.split("/") if part) or DEFAULT_PREFIX
    if len(path) > MOST_PATH or not path.isprintable() or not path.isascii():
        raise StoreError(
            f"{location} names no part of etcd; write flannel's etcd-prefix after the host, such as {DEFAULT_PREFIX}"
        )
    return replace(location, path=path)


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys below a *path* without slashes around it."""

    path: str

    @property
    def prefix(self) -> bytes:
        """What all of them begin with."""
        return f"/{self.path}/".encode()

    @property
    def config(self) -> bytes:
        """The key of the config."""
        return self.prefix + b"config"

    def lease(self, subnet: IPv4Network) -> bytes:
        """Return the key of the lease of *subnet*."""
        return self.prefix + f"subnets/{format_subnet(subnet)}".encode()

    def subnet_of(self, key: bytes) -> IPv4Network | None:
        """Return the subnet whose lease *key* is; None where it is another key.  Raises MalformedError."""
        folder = self.prefix + b"subnets/"
        if not key.startswith(folder):
            return None
        try:
            name = key.removeprefix(folder).decode("ascii")
        except UnicodeDecodeError:
            raise MalformedError("its key is not a subnet") from None
        dual = DUAL.fullmatch(name)
        subnet = parse_subnet(dual[1] if dual is not None else name)
        if not isinstance(subnet, IPv4Network):
            raise MalformedError("its key is not an IPv4 subnet")
        return subnet


@dataclass(frozen=True, slots=True)
class AgentData:
    """What an overlay agent says about itself.  *instance* differs at each start; *port* is that of WireGuard.

    *other_key* is the key that it answers to in addition to *public_key*, while that is being replaced.
    """

    name: str
    public_key: bytes
    instance: str
    port: int
    other_key: bytes | None = None

    def is_of(self, keys: Iterable[bytes]) -> bool:
        """Return whether this is what the host says that answers to *keys*."""
        return any(key in {self.public_key, self.other_key} for key in keys)


def by_key(agent: AgentData, told: bytes | None) -> AgentData:
    """Return *agent* as the others know it, who were *told* of one of its keys."""
    if told is None or told != agent.other_key:
        return agent
    return replace(agent, public_key=told, other_key=agent.public_key)


@dataclass(frozen=True, slots=True)
class Lease:
    """What a host says of itself: where it is, and how its backend is reached.

    *public_key* and *port* are those of the wireguard backend, *mac* and *vni* those of vxlan.  *agent* is what one of
    ours adds.
    """

    address: IPv4Address
    backend: str
    public_key: bytes | None = None
    port: int | None = None
    mac: bytes | None = None
    vni: int | None = None
    agent: AgentData | None = None

    @classmethod
    def parse(cls, value: bytes) -> Lease:
        """Read the *value* of a lease.  Raises MalformedError, and nothing else, for any bytes."""
        found = _lower(parse_json(value))
        backend = found.get("backendtype") or UDP
        if not isinstance(backend, str):
            raise MalformedError("its BackendType is not a text")
        data = found.get("backenddata")
        data = _lower(data) if isinstance(data, dict) else {}
        public_key = port = mac = vni = None
        if backend == WIREGUARD:
            public_key, port = _public_key(data), _number(data, "port", 65535) or None
        elif backend == VXLAN:
            mac, vni = _mac(data), _number(data, "vni", 2**24 - 1)
        return cls(_address(found), backend, public_key, port, mac, vni, _agent(found))

    def build(self) -> bytes:
        """Return the bytes that parse() reads back into an equal value, as flanneld writes them."""
        found: dict[str, object] = {"PublicIP": str(self.address), "PublicIPv6": None}
        if self.backend != UDP:
            found["BackendType"] = self.backend
        if self.public_key is not None:
            found["BackendData"] = {"PublicKey": format_public_key(self.public_key), "Port": self.port or 0}
        elif self.mac is not None:
            found["BackendData"] = {"VNI": self.vni or 0, "VtepMAC": format_mac(self.mac)}
        if self.agent is not None:
            said: dict[str, object] = {
                "Name": self.agent.name,
                "PublicKey": format_public_key(self.agent.public_key),
                "Instance": self.agent.instance,
                "Port": self.agent.port,
            }
            if self.agent.other_key is not None:
                said["OtherKey"] = format_public_key(self.agent.other_key)
            found["Overlay"] = said
        return json.dumps(found, separators=(",", ":")).encode()


def _lower(found: Mapping[str, Any]) -> dict[str, Any]:
    return {name.lower(): value for name, value in found.items()}


def _address(found: Mapping[str, Any]) -> IPv4Address:
    text = found.get("publicip")
    try:
        address = IPv4Address(text if isinstance(text, str) else "")
    except ValueError:
        raise MalformedError("its PublicIP is not an IPv4 address") from None
    if address.is_unspecified or address.is_multicast or address.is_loopback or int(address) == 2**32 - 1:
        raise MalformedError("its PublicIP is not the address of a single host")
    return address


def _public_key(data: Mapping[str, Any], name: str = "PublicKey") -> bytes:
    text = data.get(name.lower())
    try:
        return parse_public_key(text if isinstance(text, str) else "")
    except ValueError:
        raise MalformedError(f"its {name} is none") from None


def _mac(data: Mapping[str, Any]) -> bytes:
    text = data.get("vtepmac")
    try:
        return parse_mac(text if isinstance(text, str) else "")
    except ValueError:
        raise MalformedError("its VtepMAC is none") from None


def _number(data: Mapping[str, Any], name: str, most: int) -> int:
    value = data.get(name, 0)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise MalformedError(f"its {name} is not a number up to {most}")
    return value


def _agent(found: Mapping[str, Any]) -> AgentData | None:
    said = found.get(AGENT)
    if said is None:
        return None
    if not isinstance(said, dict):
        raise MalformedError("what it says of an agent is not an object")
    said = _lower(said)
    name, instance = said.get("name"), said.get("instance")
    if not isinstance(name, str) or not PEER_NAME.fullmatch(name):
        raise MalformedError("its name is not that of a peer")
    if not isinstance(instance, str) or not INSTANCE.fullmatch(instance):
        raise MalformedError("its instance is not 32 hexadecimal digits")
    port = _number(said, "port", 65535)
    if not port:
        raise MalformedError("its port is missing")
    other = _public_key(said, "OtherKey") if said.get("otherkey") is not None else None
    return AgentData(name, _public_key(said), instance, port, other)
