"""The sockets of this node: those of the underlay, the one for ICMP errors, and those that ask for the MTU of a path.

They change in two steps, so that a change that the kernel refuses leaves everything as it was: open() opens the new
ones, and take() puts them in force.
"""

from __future__ import annotations

import contextlib
import errno
import os
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

from overlay.encap import ENCAPSULATIONS
from overlay.errors import HostError
from overlay.host.holders import find_holder
from overlay.host.paths import open_paths
from overlay.host.sockets import icmp_errors, renewal, socket_options
from overlay.host.sockets import underlay as sockets
from overlay.host.sockets.leaving import Leaving
from overlay.link.messages import REPLACED_TIME
from overlay.provisioning import taken_port

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable, Mapping, Sequence

    from overlay.config import Node
    from overlay.host.plan import IPAddress
    from overlay.host.sockets.underlay import UnderlaySocket

_Bound = tuple[int, "Sequence[IPAddress]"]  # port and addresses


@dataclass(frozen=True, slots=True)
class Opened:
    """What a node requires: *new* sockets by encapsulation, and where those of all encapsulations are *bound*."""

    new: Mapping[str, list[UnderlaySocket]]
    bound: Mapping[str, _Bound]
    icmp: socket.socket | None
    icmp_for: tuple[IPv4Address | None, int | None]


class UnderlaySockets:
    """All sockets, from one node to the next, with their marks and TTL."""

    def __init__(self, lanes: int) -> None:
        """*lanes* is the number of queues of the tun."""
        self.by_encapsulation: dict[str, list[UnderlaySocket]] = {}
        self.icmp: socket.socket | None = None
        self.paths = open_paths()
        self._lanes = lanes
        self._bound: Mapping[str, _Bound] = {}
        self._icmp_for: tuple[IPv4Address | None, int | None] = (None, None)  # its address and mark
        self._leaving = Leaving(REPLACED_TIME)
        self._ttl: int | None = None  # of the outer headers, from the peers file
        self._marked = 0  # the mark of all

    @property
    def all(self) -> list[UnderlaySocket]:
        """All underlay sockets in force."""
        return [udp for opened in self.by_encapsulation.values() for udp in opened]

    @property
    def is_icmp_refused(self) -> bool:
        """Return whether ICMP errors cannot be sent, although this node has an address for them."""
        return self._icmp_for[0] is not None and self.icmp is None

    def open(self, node: Node, fwmark: int | None, undo: contextlib.ExitStack) -> Opened:
        """Open the sockets that *node* requires and that are not open yet; *undo* closes them.  Raises HostError."""
        present = self._present()
        wanted = {
            each.name: (node.table.listen_port(node.own, each.name), node.own.listen)
            for each in node.encapsulations
        }
        spared = {node.table.listen_port(node.own, name) for name in ENCAPSULATIONS}
        new: dict[str, list[UnderlaySocket]] = {}
        for each in node.encapsulations:
            name, (port, listen) = each.name, wanted[each.name]
            if self._bound.get(name) == (port, listen):
                continue
            if each.has_ports:
                new[name] = self._open_underlay(node, name, port, fwmark, spared)
            else:
                new[name] = sockets.open_raw(listen, each, fwmark)
            for udp in new[name]:
                if udp not in present:
                    undo.callback(udp.close)
        icmp, icmp_for = self.icmp, (_ipv4_address(node), fwmark)
        if icmp_for != self._icmp_for:
            icmp = _open_icmp(*icmp_for)
            if icmp is not None:
                undo.callback(icmp.close)
        return Opened(new, wanted, icmp, icmp_for)

    def take(self, opened: Opened, ttl: int | None) -> list[UnderlaySocket]:
        """Put *opened* in force, with the TTL of outer headers; return the replaced sockets, still open."""
        if opened.icmp is not self.icmp and self.icmp is not None:
            self.icmp.close()
        self.icmp, self._icmp_for = opened.icmp, opened.icmp_for
        former = self.all
        self.by_encapsulation = {
            name: opened.new.get(name) or self.by_encapsulation[name] for name in opened.bound
        }
        self._leaving.take_back(self.all)
        self._bound = opened.bound
        self._set_ttl(ttl, {udp for new in opened.new.values() for udp in new})
        return [udp for udp in former if udp not in self.all]

    def leave(self, replaced: Iterable[UnderlaySocket], now: float) -> None:
        """Release *replaced* once the forwarder knows their successors; it still reads them for a while."""
        self._leaving.add(replaced, self.all, now)

    def close_left(self, now: float) -> None:
        """Close the replaced sockets that the forwarder no longer reads."""
        self._leaving.close_due(now)

    def renew(self, fwmark: int | None) -> None:
        """Prepare new sockets for the next forwarder.  Raises HostError; then it may be called again."""
        self._leaving.close()
        for name, opened in self.by_encapsulation.items():
            _, listen = self._bound[name]
            renewal.renew(opened, ENCAPSULATIONS[name], listen, fwmark)
        self._set_ttl(self._ttl, set(self.all))
        if self.icmp is not None:
            fresh = _open_icmp(*self._icmp_for)
            self.icmp.close()
            self.icmp = fresh
        former, self.paths = self.paths, open_paths()
        for each in former:
            each.close()
        if self._marked:  # setting no mark takes the privilege, too
            for each in self.paths:
                socket_options.set_mark(each, self._marked)

    def mark(self, fwmark: int) -> None:
        """Give all sockets the mark *fwmark*, 0 for none.  Raises HostError."""
        if fwmark != self._marked:
            self._marked = fwmark
            for each in (*(udp.socket for udp in self._present()), *self.paths):
                socket_options.set_mark(each, fwmark)

    def close(self) -> None:
        """Close all of them."""
        with contextlib.ExitStack() as rest:
            if self.icmp is not None:
                rest.callback(self.icmp.close)
            for udp in self.all:
                rest.callback(udp.close)
            rest.callback(self._leaving.close)
            for asking in self.paths:
                rest.callback(asking.close)

    def _present(self) -> list[UnderlaySocket]:
        """Return the underlay sockets that are open, including those that are about to be closed."""
        return [*self.all, *self._leaving.sockets]

    def _open_underlay(
        self, node: Node, name: str, port: int, fwmark: int | None, spared: set[int]
    ) -> list[UnderlaySocket]:
        """Return the sockets of the encapsulation *name*, reusing open ones.  Raises HostError."""
        ours = self._present()
        try:
            return sockets.open_underlay(
                node.own.listen,
                port,
                fwmark,
                [udp for udp in ours if udp.encapsulation == name],
                name,
                senders=ENCAPSULATIONS[name].senders,
                spared=spared,
                lanes=self._lanes,
            )
        except HostError as error:
            if getattr(error.__cause__, "errno", None) != errno.EADDRINUSE:
                raise
            other = next(
                (udp.encapsulation for udp in ours if udp.port == port and udp.encapsulation != name), None
            )
            if other is not None:
                raise HostError(taken_port.describe_own(node, name, port, other)) from error.__cause__
            inodes = {os.fstat(udp.fileno()).st_ino for udp in ours}
            holder = find_holder(port, node.own.listen, inodes)
            raise HostError(taken_port.describe(node, name, port, holder)) from error.__cause__

    def _set_ttl(self, ttl: int | None, opened: set[UnderlaySocket]) -> None:
        """Set the TTL of outer headers on all sockets.

        An inherited TTL comes with each packet; sealed packets have none.
        """
        for each in opened if ttl == self._ttl else self._present():
            if ttl != self._ttl or ttl:
                socket_options.set_ttl(each.socket, ttl or None)
        self._ttl = ttl


def _ipv4_address(node: Node) -> IPv4Address | None:
    """Return the source address of ICMP errors; a tap's node sends none."""
    if node.is_tap:
        return None
    return next((each for each in node.own.addresses if isinstance(each, IPv4Address)), None)


def _open_icmp(address: IPv4Address | None, fwmark: int | None) -> socket.socket | None:
    return None if address is None else icmp_errors.open_icmp(address, fwmark)
