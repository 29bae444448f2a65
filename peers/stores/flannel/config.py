"""flannel's config: the JSON at PREFIX/config, with the rules by which flanneld takes or refuses it.

Names are not case-sensitive, as in Go's JSON decoder.  A backend, or an option of one, that an overlay agent does not
support is refused: half a network is worse than none.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING, Any, TypeAlias

from peers.encapsulation import IPIP, PORTS, UDP, VNI, WIREGUARD
from peers.errors import TableError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Specification (flannel-io/flannel pkg/subnet/config.go, pkg/backend)
LENGTH, MOST_LENGTH = 24, 30  # of a host's subnet
LEAST_SPARE = 2  # bits: a network has room for four subnets, of which the first is not given out
SECONDS = 24 * 3600  # of a lease
VXLAN = "vxlan"
VXLAN_PORT = 8472  # Linux's own, where the config names none
DEFAULT_VNI = 1
MODES = ("separate", "auto", "ipv4")  # of the wireguard backend, all the same for IPv4

# Ours
CONFIG_SIZE = 64 * 1024  # bytes
OVERHEAD = 80  # bytes of the largest encapsulation between our agents, outside IPv6

Json: TypeAlias = "dict[str, Any]"


class ConfigProblem(Exception):  # noqa: N818  it becomes a TableError, which is one
    """What is wrong with a config, as the rest of a sentence about it."""


@dataclass(frozen=True, slots=True)
class Config:
    """What a config says: subnets of *network* with a *length* are given out from *first* to *last*.

    *backend* is the name of the encapsulation that hosts of flanneld have, and *port* its UDP port where it has one.
    *mtu* is that of the device.
    """

    network: IPv4Network
    length: int
    first: IPv4Address
    last: IPv4Address
    backend: str = UDP
    port: int | None = None
    vni: int = DEFAULT_VNI
    mtu: int | None = None
    keepalive: int = 0

    def subnets(self) -> Iterator[IPv4Network]:
        """Yield the subnets that are given out, the lowest first."""
        for number in range(int(self.first), int(self.last) + 1, 1 << (32 - self.length)):
            yield IPv4Network((number, self.length))

    def gives_out(self, subnet: IPv4Network) -> bool:
        """Return whether *subnet* is one of them."""
        return subnet.prefixlen == self.length and self.first <= subnet.network_address <= self.last


def read_config(value: bytes, path: Path) -> Config:
    """Return what the config *value* says; *path* names it in errors.  Raises TableError, and nothing else."""
    try:
        return _read(_lower(_parse(value)))
    except ConfigProblem as problem:
        raise TableError(path, None, str(problem)) from None


def _parse(value: bytes) -> Json:
    if len(value) > CONFIG_SIZE:
        raise ConfigProblem(f"it has more than {CONFIG_SIZE} bytes; write flannel's config there")
    try:
        found = json.loads(value.decode("utf-8"))
    except (ValueError, RecursionError):
        raise ConfigProblem('it is not JSON; write one such as {"Network": "10.244.0.0/16"}') from None
    if not isinstance(found, dict):
        raise ConfigProblem('it is not a JSON object; write one such as {"Network": "10.244.0.0/16"}')
    return found


def _lower(found: Json) -> Json:
    return {name.lower(): value for name, value in found.items()}


def _read(found: Json) -> Config:
    if _truth(found, "EnableIPv6", default=False) or not _truth(found, "EnableIPv4", default=True):
        raise ConfigProblem(
            "EnableIPv6 is true, or EnableIPv4 false, and agents take part by IPv4 alone: write EnableIPv6 as false"
        )
    network = _network(found)
    length = _length(found, network)
    size = 1 << (32 - length)
    first = _bound(found, "SubnetMin", network, length) or network.network_address + size
    last = _bound(found, "SubnetMax", network, length) or network.broadcast_address - (size - 1)
    if first > last:
        raise ConfigProblem(f"SubnetMin {first} is behind SubnetMax {last}; write them in order")
    backend = found.get("backend")
    options = {"type": UDP} if backend is None else backend
    if not isinstance(options, dict):
        raise ConfigProblem('Backend is not an object; write one such as {"Type": "wireguard"}')
    return _with_backend(Config(network, length, first, last), _lower(options))


def _network(found: Json) -> IPv4Network:
    text = found.get("network")
    if text is None:
        raise ConfigProblem("Network is missing; write one such as 10.244.0.0/16")
    try:
        if not isinstance(text, str) or "/" not in text:
            raise ValueError
        network = IPv4Network(text, strict=False)
    except ValueError:
        raise ConfigProblem("Network is not an IPv4 prefix; write one such as 10.244.0.0/16") from None
    if network.prefixlen > MOST_LENGTH - LEAST_SPARE:
        raise ConfigProblem(f"Network {network} has no room for four subnets; write a wider one")
    return network


def _length(found: Json, network: IPv4Network) -> int:
    length = _number(found, "SubnetLen", 0, MOST_LENGTH)
    if not length:
        return LENGTH if network.prefixlen <= LENGTH - LEAST_SPARE else network.prefixlen + LEAST_SPARE
    if length < network.prefixlen + LEAST_SPARE:
        raise ConfigProblem(
            f"SubnetLen {length} leaves no room for four subnets in {network}; write at least "
            f"{network.prefixlen + LEAST_SPARE}"
        )
    return length


def _bound(found: Json, name: str, network: IPv4Network, length: int) -> IPv4Address | None:
    text = found.get(name.lower())
    if text is None:
        return None
    try:
        address = IPv4Address(text if isinstance(text, str) else "")
    except ValueError:
        raise ConfigProblem(f"{name} is not an IPv4 address; write the first one of a subnet") from None
    if not int(address):
        return None
    if address not in network:
        raise ConfigProblem(f"{name} {address} is not in Network {network}; write an address of it")
    if int(address) % (1 << (32 - length)):
        raise ConfigProblem(f"{name} {address} is not where a subnet of length {length} begins; correct it")
    return address


def _with_backend(config: Config, options: Json) -> Config:
    kind = options.get("type")
    if not isinstance(kind, str) or kind not in BACKENDS:
        named = f"is {kind!r:.40}" if kind else "is missing"
        raise ConfigProblem(
            f"Backend.Type {named}, and agents take part in udp, vxlan, ipip and wireguard; write one of them"
        )
    if _truth(options, "DirectRouting", default=False, place="Backend."):
        raise ConfigProblem(
            "Backend.DirectRouting is true, and agents take nothing that comes past the tunnel; write it as false"
        )
    if options.get("psk"):
        raise ConfigProblem(
            "Backend.PSK is there, and agents take no preshared key from etcd, where everybody reads it; remove it"
        )
    mode = options.get("mode")
    if kind == WIREGUARD and mode is not None and mode not in MODES:
        raise ConfigProblem(f"Backend.Mode is {mode!r:.40}; write one of {', '.join(MODES)}")
    port = None
    if kind in PORTS:
        name = "ListenPort" if kind == WIREGUARD else "Port"
        default = VXLAN_PORT if kind == VXLAN else PORTS[kind].default
        port = _number(options, name, 0, 65535, "Backend.") or default
    mtu = _number(options, "MTU", 0, 65535, "Backend.") if kind in {VXLAN, WIREGUARD} else 0
    if mtu and mtu < 576 + OVERHEAD:
        raise ConfigProblem(f"Backend.MTU {mtu} is too small; write that of the underlay, or remove it")
    vni = _number(options, "VNI", 0, VNI.largest, "Backend.") if kind == VXLAN else None
    keepalive = _number(options, "PersistentKeepaliveInterval", 0, 65535, "Backend.")
    return Config(
        config.network,
        config.length,
        config.first,
        config.last,
        kind,
        port,
        DEFAULT_VNI if vni is None else vni,
        mtu - OVERHEAD if mtu else None,
        (keepalive or 0) if kind == WIREGUARD else 0,
    )


BACKENDS = {UDP, VXLAN, IPIP, WIREGUARD}


def _truth(found: Json, name: str, *, default: bool, place: str = "") -> bool:
    value = found.get(name.lower())
    if value is None:
        return default
    if not isinstance(value, bool):
        raise ConfigProblem(f"{place}{name} is neither true nor false; write one of them")
    return value


def _number(found: Json, name: str, least: int, most: int, place: str = "") -> int | None:
    value = found.get(name.lower())
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ConfigProblem(f"{place}{name} is not a number from {least} to {most}; correct it")
    return value
