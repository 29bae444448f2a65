"""What this node has set up on its host: the tun, addresses and routes, the underlay sockets.

One object owns them all and brings them from one peer table to the next; a change that the kernel refuses leaves
everything as it was.
"""

from __future__ import annotations

import contextlib
import logging
from ipaddress import IPv4Address, ip_address
from typing import TYPE_CHECKING

from overlay import config
from overlay.errors import HostError
from overlay.host import netlink, sockets, sysctl, tun
from overlay.host.paths import open_paths
from peers.prefixes import PrefixMap

if TYPE_CHECKING:
    import socket

    from overlay.config import Node
    from overlay.host.plan import HostPlan
    from overlay.host.sockets import UdpSocket
    from overlay.wire.addresses import Sockaddr

# Ours
MTU_QUESTIONS = (
    256  # underlay addresses whose route is asked for when the MTU is computed; underlays are alike
)

log = logging.getLogger("overlay")

Endpoints = set[tuple[str, "Sockaddr"]]
"""Underlay addresses with the name of the peer each belongs to."""


class HostSetup:
    """The tun and everything around it.  Closing it takes back what was set up; the host is then as before."""

    def __init__(self, interface: str) -> None:
        """Make the tun; nothing else is touched.  Raises HostError."""
        self.device = tun.open_tun(interface)
        self.sockets: dict[str, list[UdpSocket]] = {}  # by encapsulation
        self.icmp: socket.socket | None = None
        self.plan: HostPlan | None = None
        self._mtu_reason = ""
        self._is_cut_outside = False  # the tun's MTU is larger than fits the underlay's
        self._icmp_for: tuple[IPv4Address | None, int | None] = (None, None)
        self._bound: dict[str, tuple[object, ...]] = {}  # likewise: where they are bound
        self._overhead = 0
        self._marked = 0  # the mark of `underlay`
        self._routed: PrefixMap[bool] = PrefixMap()
        with contextlib.ExitStack() as undo:
            undo.callback(self.device.close)
            self._routing = netlink.Routing(interface, self.device.index)
            undo.callback(self._routing.close)
            self.watch = self._routing.watch()
            undo.callback(self.watch.close)
            self._paths = open_paths()
            for each in self._paths:
                undo.callback(each.close)
            left = self._routing.read_back()
            undo.pop_all()
        if left:
            log.info("took over %d routes and rules that a killed agent left interface=%s", left, interface)

    @property
    def interface(self) -> str:
        """The name of the tun."""
        return self.device.name

    @property
    def paths(self) -> list[socket.socket]:
        """Sockets by which the kernel is asked for the MTU of a path; none where the tun's is larger than any takes.

        It was chosen so, or is the least that IPv6 needs; then the kernel is left to cut datagrams in fragments.
        """
        return [] if self._is_cut_outside else self._paths

    @property
    def mtu(self) -> int:
        """The MTU of the tun in bytes."""
        assert self.plan is not None
        return self.plan.mtu

    @property
    def mtu_reason(self) -> str:
        """What the MTU comes from, for people."""
        return self._mtu_reason

    @property
    def underlay(self) -> list[UdpSocket]:
        """All underlay sockets."""
        return [udp for opened in self.sockets.values() for udp in opened]

    @property
    def port(self) -> int:
        """The UDP port of the underlay sockets, of the encrypted encapsulation where that is in use."""
        return self.underlay[0].port

    def close(self) -> None:
        """Undo everything.  Raises HostError for what the kernel did not let go of; the rest is undone."""
        with contextlib.ExitStack() as rest:
            rest.callback(self.device.close)
            if self.icmp is not None:
                rest.callback(self.icmp.close)
            for udp in self.underlay:
                rest.callback(udp.close)
            for asking in self._paths:
                rest.callback(asking.close)
            rest.callback(self.watch.close)
            rest.callback(self._routing.close)
            self._routing.withdraw()

    def adopt(self, node: Node, endpoints: Endpoints) -> list[UdpSocket]:
        """Bring the host to what *node* asks for and return the sockets that were replaced, still open.

        Raises HostError; then the host is as before.
        """
        overhead = config.plan_overhead(node, endpoints)
        before, plan = self.plan, self._compute(node, endpoints, overhead)
        with contextlib.ExitStack() as undo:
            wanted = {
                each.name: (node.table.listen_port(node.own, each.name), node.own.listen)
                for each in node.encapsulations
            }
            opened: dict[str, list[UdpSocket]] = {}
            for name, (port, listen) in wanted.items():
                if self._bound.get(name) != (port, listen):
                    opened[name] = sockets.open_underlay(
                        listen, port, plan.fwmark, self.sockets.get(name, ()), name
                    )
                    for udp in opened[name]:
                        undo.callback(udp.close)
            icmp, icmp_for = self.icmp, (_ipv4_address(node), plan.fwmark)
            if icmp_for != self._icmp_for:
                icmp = _open_icmp(*icmp_for)
                if icmp is not None:
                    undo.callback(icmp.close)
            if plan != before:
                if before is not None:
                    undo.callback(self._go_back, before)
                self._apply(plan)
            undo.pop_all()
        self.plan, self._overhead = plan, overhead
        if icmp is not self.icmp and self.icmp is not None:
            self.icmp.close()
        self.icmp, self._icmp_for = icmp, icmp_for
        replaced = [
            udp for name, old in self.sockets.items() if name in opened or name not in wanted for udp in old
        ]
        self.sockets = {name: opened.get(name) or self.sockets[name] for name in wanted}
        self._bound = dict(wanted)
        return replaced

    def is_affected_by(self, endpoint: Sockaddr) -> bool:
        """Return whether a peer at *endpoint* may ask for other routes or a smaller MTU than there are."""
        assert self.plan is not None
        address = ip_address(endpoint[0].partition("%")[0])
        if self._routed.lookup(address):
            return True
        mtu = self._routing.route_mtu(address, self.plan.fwmark)
        return mtu is not None and config.plan_mtu([mtu], self._overhead) < self.plan.mtu

    def mend(self) -> None:
        """Put back what somebody else took away.  Raises HostError."""
        self._routing.read_back()
        assert self.plan is not None
        self._routing.apply(self.plan)

    def notes(self, node: Node) -> list[str]:
        """Return a sentence for everything of this host that will keep traffic from going, or from going fast."""
        notes = []
        offloads = self.device.offloads
        if not (offloads.tcp and offloads.udp):
            missing = "UDP" if offloads.tcp else "TCP and UDP"
            notes.append(f"this kernel gives no {missing} super-packets: throughput is lower")
        if not all(udp.can_segment and udp.can_coalesce for udp in self.underlay):
            notes.append("this kernel cannot cut or join UDP datagrams: throughput is lower")
        if self._icmp_for[0] is not None and self.icmp is None:
            notes.append("without CAP_NET_RAW, ICMP errors carry the unreachable address as their source")
        behind = {prefix.version for prefix in node.own.subnets if prefix.num_addresses > 1}
        if 4 in behind and not sysctl.forwarding_enabled(4):
            notes.append(_not_forwarded("IPv4", "net.ipv4.ip_forward"))
        if 6 in behind and not sysctl.forwarding_enabled(6):
            notes.append(_not_forwarded("IPv6", "net.ipv6.conf.all.forwarding"))
        if self.plan is not None and self.plan.policy_routes:
            strict = ", ".join(sysctl.strict_interfaces())
            if strict:
                notes.append(
                    f"strict rp_filter on {strict} drops what peers send past the policy routes: "
                    "run `sysctl -w net.ipv4.conf.INTERFACE.rp_filter=2` for each"
                )
        return notes

    def _compute(self, node: Node, endpoints: Endpoints, overhead: int) -> HostPlan:
        mtu, self._mtu_reason = self._settle_mtu(node, endpoints, overhead)
        return config.plan_host(node, mtu, endpoints)

    def _settle_mtu(self, node: Node, endpoints: Endpoints, overhead: int) -> tuple[int, str]:
        """Return the MTU of the tun, and what it comes from."""
        names = {sockaddr[0]: name for name, sockaddr in endpoints}
        mark = self.plan.fwmark if self.plan is not None else node.table.network.fwmark
        known = {
            host: self._routing.route_mtu(ip_address(host.partition("%")[0]), mark)
            for host in sorted(names)[:MTU_QUESTIONS]
        }
        ways = [(found, host) for host, found in known.items() if found is not None]
        mtu = config.plan_mtu(known.values(), overhead)
        chosen = node.table.network.mtu
        found, host = min(ways, default=(config.UNDERLAY_MTU, ""))
        self._is_cut_outside = (chosen or mtu) > found - overhead
        if chosen is not None:
            return chosen, "as the peers file says"
        if not ways:
            return mtu, "no route to an endpoint is known"
        least = f", but at least {mtu}" if mtu > found - overhead else ""
        return (
            mtu,
            f"{found} on the way to {names[host]} at {host}, less {overhead} for the tunnel{least}",
        )

    def _apply(self, plan: HostPlan) -> None:
        """Change routes and rules, with the marks on our sockets before the rules that look at them, and off after."""
        if plan.fwmark:
            self._mark(plan.fwmark)
        self._routing.apply(plan)
        if not plan.fwmark:
            self._mark(0)
        self._routed = PrefixMap((prefix, True) for prefix in (*plan.routes, *plan.policy_routes))

    def _go_back(self, before: HostPlan) -> None:
        with contextlib.suppress(HostError):
            self._apply(before)

    def _mark(self, fwmark: int) -> None:
        if fwmark != self._marked:
            self._marked = fwmark
            for each in (*(udp.socket for udp in self.underlay), *self._paths):
                sockets.set_mark(each, fwmark)


def _ipv4_address(node: Node) -> IPv4Address | None:
    return next((each for each in node.own.addresses if isinstance(each, IPv4Address)), None)


def _open_icmp(address: IPv4Address | None, fwmark: int | None) -> socket.socket | None:
    return None if address is None else sockets.open_icmp(address, fwmark)


def _not_forwarded(family: str, key: str) -> str:
    return f"this host does not forward {family}: its subnets are not reached; run `sysctl -w {key}=1`"
