"""The requests of dockerd as values: parsed from bounded JSON, or refused with a sentence."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_address, ip_interface, ip_network
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

    from overlay.host.plan import IPAddress, IPNetwork

# Specification: libnetwork's docs/remote.md and netlabel/labels.go; numbers of protocols by IANA
GENERIC = "com.docker.network.generic"
INTERNAL = "com.docker.network.internal"
MTU = "com.docker.network.driver.mtu"
PORT_MAP = "com.docker.network.portmap"
PROTOCOLS = {6: "tcp", 17: "udp", 132: "sctp"}
REQUEST_TYPE, GATEWAY_TYPE = "RequestAddressType", "com.docker.network.gateway"

# Ours
IDENTIFIER = re.compile(r"[A-Za-z0-9]{1,128}")  # Docker's have 64 hexadecimal digits
LEAST_MTU, MOST_MTU = 576, 65535
MOST_PORTS = 65535  # of one container

Body: TypeAlias = "Mapping[str, Any]"


class CallError(Exception):
    """A call that is refused; the text is a sentence for the user of docker."""


@dataclass(frozen=True, slots=True)
class NewNetwork:
    """CreateNetwork.  *mtu* is an upper bound, None for the tunnel's; an *internal* network leads nowhere else."""

    identifier: str
    pools: tuple[IPNetwork, ...]
    mtu: int | None = None
    is_internal: bool = False

    @classmethod
    def parse(cls, body: Body) -> NewNetwork:
        """Read it.  Raises CallError."""
        options = _mapping(body, "Options")
        generic = _mapping(options, GENERIC)
        for name in generic:
            if name != MTU:
                raise CallError(f"the option {name} is not known: this driver takes only {MTU}")
        pools = [
            _network(_string(each, "Pool"), f"{key}.Pool")
            for key in ("IPv4Data", "IPv6Data")
            for each in _list(body, key)
        ]
        mtu = None
        if MTU in generic:
            text = str(generic[MTU])
            if not re.fullmatch(r"[0-9]{1,5}", text) or not LEAST_MTU <= int(text) <= MOST_MTU:
                raise CallError(f"{MTU} is {text:.40}: write {LEAST_MTU} to {MOST_MTU}")
            mtu = int(text)
        return cls(identifier(body, "NetworkID"), tuple(pools), mtu, options.get(INTERNAL) is True)


@dataclass(frozen=True, slots=True, order=True)
class Published:
    """A port of a container that is reached at a port of the host, at all addresses of the host or at *host*."""

    protocol: str
    host_port: int
    port: int
    host: str = ""


@dataclass(frozen=True, slots=True)
class NewEndpoint:
    """CreateEndpoint: a container's place in a network, with the addresses that it got before."""

    network: str
    identifier: str
    addresses: tuple[IPAddress, ...]
    mac: str | None

    @classmethod
    def parse(cls, body: Body) -> NewEndpoint:
        """Read it.  Raises CallError."""
        interface = _mapping(body, "Interface")
        addresses = []
        for key in ("Address", "AddressIPv6"):
            text = _string(interface, key)
            if text:
                try:
                    addresses.append(ip_interface(text).ip)
                except ValueError:
                    raise CallError(f"{text:.80} is not an address with its prefix length") from None
        mac = _string(interface, "MacAddress") or None
        return cls(identifier(body, "NetworkID"), identifier(body, "EndpointID"), tuple(addresses), mac)


@dataclass(frozen=True, slots=True)
class NewPool:
    """RequestPool.  *pool* is None if the driver may choose."""

    pool: IPNetwork | None
    version: int

    @classmethod
    def parse(cls, body: Body) -> NewPool:
        """Read it.  Raises CallError."""
        text, version = _string(body, "Pool"), 6 if body.get("V6") is True else 4
        if _string(body, "SubPool"):
            raise CallError("--ip-range is not supported: addresses come from the whole subnet of this host")
        if not text:
            return cls(None, version)
        pool = _network(text, "--subnet")
        return cls(pool, pool.version)


@dataclass(frozen=True, slots=True)
class NewAddress:
    """RequestAddress from *pool*.  *address* is None if the driver may choose."""

    pool: IPNetwork
    address: IPAddress | None
    is_gateway: bool

    @classmethod
    def parse(cls, body: Body) -> NewAddress:
        """Read it.  Raises CallError."""
        text = _string(body, "Address")
        options = _mapping(body, "Options")
        address = parse_address(text) if text else None
        return cls(pool_of(_string(body, "PoolID")), address, options.get(REQUEST_TYPE) == GATEWAY_TYPE)


def parse_published(body: Body) -> tuple[Published, ...]:
    """Return the ports that a call publishes.  Raises CallError, also for a port that the driver is asked to choose."""
    found = []
    for each in _list(_mapping(body, "Options"), PORT_MAP):
        number, port, host_port = (_number(each, key) for key in ("Proto", "Port", "HostPort"))
        last = _number(each, "HostPortEnd") or host_port
        if number not in PROTOCOLS:
            raise CallError(f"IP protocol {number} has no ports to publish: publish tcp, udp or sctp")
        if not host_port or not port:
            raise CallError(
                f"port {port} is published without a port of the host, and this driver could not report the chosen "
                f"one: write one, as in -p 8080:{port or 80}"
            )
        if last != host_port:
            raise CallError(
                f"the ports {host_port} to {last} of the host are for one of the container: write one of them"
            )
        host = _string(each, "HostIP")
        if host:
            host = str(parse_address(host))
        if host in {"0.0.0.0", "::"}:
            host = ""
        found.append(Published(PROTOCOLS[number], host_port, port, host))
    if len(found) > MOST_PORTS:
        raise CallError(f"{len(found)} ports are more than a container can have")
    return tuple(dict.fromkeys(found))


def identifier(body: Body, key: str) -> str:
    """Return the id of a network or an endpoint.  Raises CallError."""
    text = _string(body, key)
    if not IDENTIFIER.fullmatch(text):
        raise CallError(f"{key} is {text!r:.80}, which is not an id of Docker")
    return text


def pool_id(space: str, pool: IPNetwork) -> str:
    """Return the id that pool_of() reads."""
    return f"{space}/{pool}"


def pool_of(text: str) -> IPNetwork:
    """Return the pool that a PoolID names.  Raises CallError."""
    _, _, network = text.partition("/")
    return _network(network, "PoolID")


def parse_address(text: str) -> IPAddress:
    """Return an address, which Docker may write with a prefix length.  Raises CallError."""
    try:
        return ip_interface(text).ip if "/" in text else ip_address(text)
    except ValueError:
        raise CallError(f"{text:.80} is not an address") from None


def _network(text: str, what: str) -> IPNetwork:
    try:
        return ip_network(text)
    except ValueError:
        raise CallError(f"{what} is {text!r:.80}: write a prefix such as 10.244.1.0/24") from None


def _mapping(body: Any, key: str) -> Body:
    value = body.get(key) if isinstance(body, dict) else None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise CallError(f"{key} is not an object")
    return value


def _list(body: Any, key: str) -> list[Any]:
    value = body.get(key) if isinstance(body, dict) else None
    if value is None:
        return []
    if not isinstance(value, list):
        raise CallError(f"{key} is not a list")
    return value


def _string(body: Any, key: str) -> str:
    value = body.get(key) if isinstance(body, dict) else None
    if value is None:
        return ""
    if not isinstance(value, str):
        raise CallError(f"{key} is not a string")
    return value


def _number(body: Any, key: str) -> int:
    value = body.get(key) if isinstance(body, dict) else None
    if value is None:
        return 0
    if type(value) is not int or not 0 <= value <= 65535:
        raise CallError(f"{key} is not a number up to 65535")
    return value
