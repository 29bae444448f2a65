"""What a forwarder must know about a node: the commands, with the descriptors that go with them."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from overlay.host.process.cpu import has_aes
from overlay.link.messages import SetNode, SocketRow, Sockets, Start, keys_for
from overlay.wire.bulk import AES_256_GCM, CHACHA20_POLY1305
from peers.peer import INHERITED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from overlay.config import Node
    from overlay.host.sockets.underlay import UnderlaySocket
    from overlay.provisioning.setup import HostSetup
    from overlay.session.constants import Timing


def describe_start(node: Node, host: HostSetup, timing: Timing) -> tuple[Start, list[int]]:
    """Return the first command of a forwarder, with the tun device."""
    times = [float(value) for value in dataclasses.astuple(timing)]
    can_segment = all(each.can_segment for each in host.udp)
    offloads, public_key = host.device.offloads, node.private_key.public
    start = Start(public_key, host.mtu, offloads.udp, can_segment, times, _ciphers(node), node.is_tap)
    return start, host.device.descriptors


def describe_node(node: Node, host: HostSetup) -> tuple[SetNode, list[int]]:
    """Return the command with the values that may change while the node runs, and the sockets for ICMP errors and path
    MTUs.
    """
    addresses = [address.packed for address in node.own.addresses]
    icmp = [] if host.icmp is None else [host.icmp.fileno()]
    network, paths = node.table.network, host.paths
    macs, families = list(node.macs), [int(each.family) for each in paths]
    inherits_ttl, keys = network.ttl == INHERITED, keys_for(SetNode, network)
    publics = [key.public for key in node.private_keys]
    command = SetNode(
        host.mtu, bool(icmp), addresses, inherits_ttl, macs, families, public_keys=publics, **keys
    )
    return command, [*icmp, *(each.fileno() for each in paths)]


def describe_sockets(encapsulation: str, opened: Sequence[UnderlaySocket]) -> tuple[Sockets, list[int]]:
    """Return the command with all sockets of an encapsulation, which replace its previous ones."""
    rows = [
        SocketRow(int(each.family), each.port, int(each.role), each.protocol, each.lane) for each in opened
    ]
    return Sockets(encapsulation, rows), [each.fileno() for each in opened]


def _ciphers(node: Node) -> list[int]:
    """Return the ciphers of bulk units, best first."""
    if not node.table.network.bulk:
        return []
    return [AES_256_GCM, CHACHA20_POLY1305] if has_aes() else [CHACHA20_POLY1305]
