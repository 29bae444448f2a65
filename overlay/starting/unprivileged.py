"""A start without the privilege to set the host up: lists everything that must be done first, in one error."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from overlay import config
from overlay.errors import ConfigError, HostError
from overlay.host import advice, control, sysctl, tun
from overlay.host.interfaces import index_of
from overlay.host.netlink.routing import Routing
from overlay.host.plan import DeviceState
from overlay.host.prepared import lack_of
from overlay.host.process import privileges
from overlay.host.process.privileges import Capability
from overlay.keys.files import load_own_key
from overlay.provisioning import planning
from overlay.resolver import literal
from peers.errors import StoreError, TableError
from peers.peer import TAP, TUN

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from overlay.config import Node, Options

FIRST_FREE_PORT = "ipv4/ip_unprivileged_port_start"
NEW_MTU = 1500  # of an interface that `ip tuntap` has made
NEW = DeviceState(is_up=False, mtu=NEW_MTU, addresses=frozenset(), networks=frozenset())


def check(options: Options) -> None:
    """Raise HostError if this process certainly cannot do what *options* require; the text lists all that is missing.

    Problems that are only noted later, such as a route that root has not set, do not count.  Nothing is changed.
    """
    if not privileges.missing([Capability.NET_ADMIN]):
        return
    steps = list(_steps(options))
    if steps:
        raise HostError(
            f"overlay up has no CAP_NET_ADMIN here: {advice.gain(Capability.NET_ADMIN)}, or without it "
            f"{'; '.join(steps)}"
        )


def _steps(options: Options) -> Iterator[str]:
    """Yield what to do about each thing that is missing."""
    if options.fix_sysctl:
        yield "omit --fix-sysctl, and let root set the sysctls that the notes name"
    for name, is_asked in (("masquerade", options.masquerade), ("forward", options.forward)):
        if is_asked:
            yield f"omit --{name}, and let root make such rules"
    if options.docker:
        yield "omit --docker, because only root can create interfaces for containers"
    files = [(path, "") for path in options.peers.open().files()]
    for path, otherwise in (*files, (options.key, ", or name another with --key")):
        if _is_closed(path):
            yield f"as root, let this user read {path}{otherwise}"
    node = _node(options)
    yield from _interface(options, node)
    if not os.path.exists(tun.DEVICE):
        yield f"as root, load the tun module (`modprobe tun`), or give the container {tun.DEVICE}"
    elif not os.access(tun.DEVICE, os.R_OK | os.W_OK):
        yield (
            f"as root, let everyone open {tun.DEVICE}, which alone does not allow creating an interface (`chmod 666 "
            f"{tun.DEVICE}`)"
        )
    yield from _control_socket()
    if node is not None:
        yield from _underlay(node)


def _is_closed(path: Path) -> bool:
    """Return whether *path* may exist but must not be read."""
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC))
    except PermissionError:
        return True
    except (OSError, ValueError):  # the reader reports what is wrong
        return False
    return False


def _node(options: Options) -> Node | None:
    """Return the node that this host would be; None if that is not known yet, which is reported later."""
    with contextlib.suppress(ConfigError, HostError, StoreError, TableError):
        key, _ = load_own_key(options.key)
        return config.settle(options.peers.open(), key, options)
    return None


def _kind(options: Options, node: Node | None) -> str | None:
    """Return the kind of device in the peers file; None if the file cannot be read."""
    if node is not None:
        return node.table.network.device
    with contextlib.suppress(StoreError, TableError):
        return options.peers.open().load().network.device
    return None


def _interface(options: Options, node: Node | None) -> Iterator[str]:
    interface, index = options.interface, index_of(options.interface)
    device, commands = NEW, list[str]()
    if index is None:
        kind = _kind(options, node)
        commands.append(tun.tuntap(interface, kind or TUN))
        what = f"make the interface {interface} for this user"
        either = "" if kind is not None else f', with `mode {TAP}` if the peers file has device = "{TAP}"'
    else:
        with contextlib.closing(Routing(interface, index)) as routing:
            device = routing.device()
        if device.is_up:
            return
        what, either = f"set the interface {interface} up", ""
    if node is None:
        commands.append(f"ip link set {interface} up")
    else:
        endpoints = {
            (peer.name, sockaddr)
            for peer in node.others
            if peer.endpoint is not None
            for sockaddr in literal(peer.endpoint)
        }
        commands += lack_of(interface, planning.plan(node, endpoints, {}, interface).plan, device).commands
    yield f"have root {what} (`{' && '.join(commands)}`{either})"


def _control_socket() -> Iterator[str]:
    remedy = (
        "set XDG_RUNTIME_DIR, for the control socket, "
        f"to a directory of this user such as /run/user/{os.geteuid()}"
    )
    try:
        directory = control.own_directory()
    except HostError:
        yield remedy
        return
    there = next((each for each in (directory, *directory.parents) if each.exists()), directory)
    if not os.access(there, os.W_OK | os.X_OK):
        yield f"{remedy}, because this user may not write to {directory}"


def _underlay(node: Node) -> Iterator[str]:
    """Yield what to do so that the sockets of *node* can be opened."""
    first = sysctl.read(FIRST_FREE_PORT)
    for each in node.encapsulations:
        if not each.has_ports:
            if privileges.missing([Capability.NET_RAW]):
                yield f"give the agent {Capability.NET_RAW} for the encapsulation {each.name}"
            continue
        port = node.table.listen_port(node.own, each.name)
        if port < (1024 if first is None else first) and privileges.missing([Capability.NET_BIND_SERVICE]):
            yield (
                f"give the agent {Capability.NET_BIND_SERVICE} for UDP port {port}, "
                f"or choose a port from {first or 1024}"
            )
    if node.table.network.fwmark is not None:
        yield "remove fwmark from the peers file"
