"""Problems of a host on which no agent runs, as far as they can be found: for `overlay doctor`.

Files, keys and settings are checked as the start of an agent would, and nothing is changed.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from typing import TYPE_CHECKING

from overlay import config, resolver
from overlay.diagnosis.facts import Facts
from overlay.diagnosis.finding import Finding
from overlay.diagnosis.missing_programs import find_missing
from overlay.diagnosis.registry import CHECKS, MORE_CHECKS, diagnose
from overlay.errors import ConfigError, HostError, KeyFileError
from overlay.host import guards, sysctl
from overlay.host.firewall.read import read_firewall
from overlay.host.holders import find_holder
from overlay.host.interfaces import is_there
from overlay.host.link_state import LinkState
from overlay.host.netlink.routing import Routing
from overlay.host.tun import DEVICE, Offloads, driver_of
from overlay.keys.files import load_own_key, load_preshared_key
from overlay.provisioning import planning, taken_port
from peers.errors import StoreError, TableError
from peers.peer import preshared_key_file_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from overlay.config import Node, Options
    from overlay.provisioning.planning import Endpoints
    from peers.peer import Endpoint

# Ours
NAMES_TIME = 4.0  # seconds for all names of endpoints together
NAMES = 64  # that are looked up
PATHS = 64  # whose MTU is queried


@dataclass(frozen=True, slots=True)
class FutureDevice:
    """The device that an agent would make, assumed to have no problems."""

    name: str
    index: int = -1
    offloads: Offloads = field(default_factory=lambda: Offloads(checksum=True, tcp=True, ecn=True, udp=True))
    is_persistent: bool = False


@dataclass(frozen=True, slots=True)
class FutureSocket:
    """A socket that an agent would open at *port*."""

    port: int
    can_segment: bool = True
    can_coalesce: bool = True
    receive_buffer: int = 0  # unknown


@dataclass(slots=True)
class Examined:
    """Which peer this host is, None if that is not known, and the findings."""

    node: str | None = None
    findings: list[Finding] = field(default_factory=list)


def examine(options: Options) -> Examined:
    """Return what would keep an agent with *options* from starting, or from working.  Blocks for a few seconds at
    most.
    """
    told = Examined()
    try:
        node = _settle(options, told)
    except KeyFileError as error:
        told.findings.append(Finding("own_key", error.problem, error.remedy))
        return told
    except (ConfigError, TableError, StoreError) as error:
        told.findings.append(Finding("peers_file", str(error)))
        return told
    if node is None:
        return told
    told.node = node.own.name
    told.findings += config.describe_files(options, node)
    told.findings += _device(options.interface, is_tap=node.is_tap)
    told.findings += _guards(options.interface)
    told.findings += _ports(node)
    endpoints, unresolved = _look_up(node)
    told.findings += unresolved
    told.findings += _host(node, endpoints, options)
    return told


def _settle(options: Options, told: Examined) -> Node | None:
    """Return the node that this host is; None if *told* has the reason why that is not known.

    Raises the errors of a start, such as ConfigError.
    """
    store = options.peers.open()
    table = store.load()
    key, _ = load_own_key(options.key)
    try:
        own = config.find_own(table, key, options)
    except KeyFileError:
        raise
    except ConfigError as error:
        told.findings.append(Finding("own_key", str(error)))
        return None
    missing = find_missing(table, own, store.files(), masquerade=options.masquerade)
    if missing is not None:
        told.findings.append(Finding("missing_program", str(missing)))
    paths: dict[Path, str] = {}
    for peer in table.peers.values():
        path = preshared_key_file_for(own, peer) if peer is not own else None
        if path is not None:
            paths.setdefault(path, peer.name)
    for path, name in paths.items():
        try:
            load_preshared_key(path)
        except KeyFileError as error:
            told.findings.append(Finding("key_file", error.problem, error.remedy, name))
    if told.findings:
        told.node = own.name
        return None
    return config.settle(store, key, options)


def _device(interface: str, *, is_tap: bool) -> Iterator[Finding]:
    """Yield why the agent could not make its device."""
    wanted = "tap" if is_tap else "tun"
    driver = driver_of(interface) if is_there(interface) else ("tun", wanted)
    if driver != ("tun", wanted):
        kind = (
            "of another kind"
            if driver is None
            else f"of the kind {driver[1] if driver[0] == 'tun' else driver[0]}"
        )
        yield Finding(
            "interface_taken",
            f"there is an interface {interface} {kind} on this host, where the agent would make a {wanted} device",
            f"choose another name with --interface, or run `ip link delete {interface}`",
        )
    if not os.path.exists(DEVICE):
        yield Finding(
            "tun_missing",
            f"this host has no {DEVICE}",
            "run `modprobe tun`; a container needs the device from its host, for example with `--device /dev/net/tun`",
        )


def _guards(interface: str) -> Iterator[Finding]:
    try:
        number = guards.count(interface)
    except HostError:  # reported by the check of the routes
        return
    if number:
        yield Finding(
            "guards",
            f"an agent of {interface} that was killed or ended with an error left routes that reject all packets for "
            "the overlay, so that none leaves unencrypted",
            f"`overlay up` takes them over; `overlay down --interface {interface}` removes them",
        )


def _ports(node: Node) -> Iterator[Finding]:
    """Yield each port that the node needs but another program has."""
    for port, name in _wanted_ports(node).items():
        holder = find_holder(port, node.own.listen)
        if holder is not None:
            yield Finding("port_taken", taken_port.describe(node, name, port, holder))


def _wanted_ports(node: Node) -> dict[int, str]:
    """Return the UDP ports that the node needs, each with its encapsulation."""
    named = ((node.table.listen_port(node.own, each.name), each.name) for each in node.encapsulations)
    return {port: name for port, name in named if port}


def _look_up(node: Node) -> tuple[Endpoints, list[Finding]]:
    """Return where the peers are, and a finding for each whose name has no address."""
    found: Endpoints = set()
    wanted: dict[str, Endpoint] = {}
    for name, tunnel in node.tunnels.items():
        if tunnel.endpoint is None:
            continue
        if tunnel.endpoint.address is not None:
            found.update((name, sockaddr) for sockaddr in resolver.literal(tunnel.endpoint))
        elif len(wanted) < NAMES:
            wanted[name] = tunnel.endpoint
    findings = []
    for name, answer in resolver.resolve_all(wanted, NAMES_TIME).items():
        if isinstance(answer, str):
            findings.append(
                Finding(
                    "unresolved",
                    f"{name} cannot be reached, because its endpoint {answer}",
                    "correct the name in the peers file, or see what `getent ahosts` finds on this host",
                    name,
                )
            )
        else:
            found.update((name, sockaddr) for sockaddr in answer)
    return found, findings


def _host(node: Node, endpoints: Endpoints, options: Options) -> Sequence[Finding]:
    try:
        with contextlib.closing(Routing(options.interface, None)) as routes:
            hosts = sorted({sockaddr[0] for _, sockaddr in endpoints})[:PATHS]
            paths = {host: routes.route_mtu(ip_address(host.partition("%")[0])) for host in hosts}
            planned = planning.plan(node, endpoints, paths, options.interface)
            facts = Facts(
                node,
                planned.plan,
                FutureDevice(options.interface),
                [FutureSocket(port) for port in _wanted_ports(node)],
                frozenset(endpoints),
                routes,
                sysctl.read,
                is_set_up=False,
                room=planned.room,
                interfaces=LinkState(),
            )
            return diagnose(replace(facts, firewall=read_firewall()), (*CHECKS, *MORE_CHECKS))
    except (HostError, OSError) as error:
        cause = error if isinstance(error, HostError) else error.strerror
        return [Finding("unknown", f"not all of this host could be examined: {cause}")]
