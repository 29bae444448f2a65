"""What this node has set up on its host: the tun, addresses and routes, the underlay sockets.

One object owns them all and changes them from one peer table to the next; a change that the kernel refuses leaves
everything as it was.
"""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import TYPE_CHECKING

from overlay import config
from overlay.diagnosis.facts import Facts
from overlay.diagnosis.offloads import underlay_devices
from overlay.diagnosis.registry import CHECKS, Checks, diagnose
from overlay.diagnosis.settings import faults
from overlay.errors import HostError
from overlay.host import modules, sysctl, tun
from overlay.host.arp_settings import keep_to_tun
from overlay.host.device_drops import overruns
from overlay.host.firewall.read import read_firewall
from overlay.host.interfaces import set_mtu
from overlay.host.link_state import LinkState
from overlay.host.netlink.route_lookup import ask_way
from overlay.host.own_rules.own_rules import SUFFIX as RULES
from overlay.host.own_rules.own_rules import OwnRules
from overlay.host.prepared import Prepared, open_routing
from overlay.host.settings import Settings
from overlay.host.translations import Translations
from overlay.host.tunnel_errors import TunnelErrors
from overlay.numbers import count
from overlay.provisioning import planning
from overlay.provisioning.underlay_sockets import UnderlaySockets

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from overlay.config import Node
    from overlay.diagnosis.finding import Finding
    from overlay.host.firewall.rules import Firewall
    from overlay.host.netlink.fib import Link
    from overlay.host.netlink.path_mtu_exceptions import LearntMtu
    from overlay.host.netlink.routes import RouteKind, RouteSet
    from overlay.host.plan import HostPlan
    from overlay.host.sockets.underlay import UnderlaySocket
    from overlay.provisioning.planning import Endpoints, Planned
    from overlay.wire.addresses import Sockaddr

# Ours
BARE_MTU = 1420  # the default of every WireGuard: 1500 less 80
QUESTIONS = 256  # underlay addresses whose routes are queried; underlays are alike

log = logging.getLogger("overlay")


@dataclass(frozen=True, slots=True)
class _Adopted:
    # The result of setting up.  If the tun's MTU is larger than the room on the underlay, the kernel fragments.
    node: Node
    endpoints: Endpoints
    planned: Planned


class HostSetup:
    """The tun and everything around it.  Closing it restores the host.

    Without CAP_NET_ADMIN it uses a persistent tun that root has prepared, and reports what is missing.
    """

    def __init__(
        self,
        interface: str,
        saved: Path,
        *,
        is_tap: bool = False,
        passing_uid: int | None = None,
        lanes: int = 1,
        is_bare: bool = False,
    ) -> None:
        """Make the tun, or tap, or attach to a persistent one; restore settings of the host that a killed agent had
        changed.

        *saved* is the file with those; see `overlay.host.settings`.  Traffic of *passing_uid*, which is look-ups of
        names, bypasses the policy routes.  Nothing else is changed.  If the host *is_bare*, only the device is set up.
        Raises HostError.
        """
        self._settings = Settings(saved)
        restored = self._settings.restore()
        if restored:
            log.info("restored settings that a killed agent had changed settings=%s", ",".join(restored))
        self.device = tun.open_tun(interface, is_tap=is_tap, queues=lanes)
        if is_bare and not self.device.is_persistent:
            set_mtu(self.device.name, BARE_MTU)
        self._overruns = overruns(self.device.name)  # before this start, for a persistent device
        self._passing_uid = passing_uid
        self._adopted: _Adopted | None = None
        self._is_touched = False  # our routes may be others than we know
        self._tunnel_errors = TunnelErrors(interface)
        self._translations = Translations(interface)
        self.rules = OwnRules(interface, saved.with_suffix(RULES))
        with contextlib.ExitStack() as undo:
            undo.callback(self.device.close)
            self._routing = open_routing(self.device, is_bare=is_bare)
            undo.callback(self._routing.close)
            self.watch = self._routing.watch()
            undo.callback(self.watch.close)
            self._sockets = UnderlaySockets(self.device.queues)
            undo.callback(self._sockets.close)
            left = self._routing.read_back()
            undo.pop_all()
        # If packets have been refused rather than sent unencrypted, an error must not let them pass.
        self.is_relied_on = left > 0
        if left:
            what = count(left, "route or rule", "routes and rules")
            log.info("took over %s that a killed agent left interface=%s", what, interface)

    @property
    def interface(self) -> str:
        """The name of the tun."""
        return self.device.name

    @property
    def is_up(self) -> bool:
        """Return whether the interface is up now."""
        return modules.is_up(self.interface)

    @property
    def plan(self) -> HostPlan | None:
        """How the host is set up; None before the first adopt()."""
        return None if self._adopted is None else self._adopted.planned.plan

    @property
    def paths(self) -> list[socket.socket]:
        """Return sockets that ask the kernel for the MTU of a path; none if the tun's is larger than any path carries.

        Such an MTU was configured, or is the minimum for IPv6; then the kernel fragments datagrams.
        """
        return [] if self.mtu > self._in_force.planned.room else self._sockets.paths

    @property
    def mtu(self) -> int:
        """The MTU of the tun in bytes."""
        return self._in_force.planned.plan.mtu

    @property
    def mtu_reason(self) -> str:
        """The reason for that MTU, for people."""
        return self._in_force.planned.mtu_reason

    @property
    def _in_force(self) -> _Adopted:
        assert self._adopted is not None
        return self._adopted

    @property
    def sockets(self) -> dict[str, list[UnderlaySocket]]:
        """The underlay sockets by encapsulation."""
        return self._sockets.by_encapsulation

    @property
    def icmp(self) -> socket.socket | None:
        """The socket for ICMP errors; None if this node sends none, or the kernel refused it."""
        return self._sockets.icmp

    @property
    def underlay(self) -> list[UnderlaySocket]:
        """All underlay sockets."""
        return self._sockets.all

    @property
    def udp(self) -> list[UnderlaySocket]:
        """Return the UDP sockets among them."""
        return [each for each in self.underlay if each.has_port]

    @property
    def port(self) -> int | None:
        """Return the UDP port of the underlay sockets, that of the encrypted encapsulation if in use; None if there are
        none.
        """
        return next((each.port for each in self.udp), None)

    def close(self, *, opens: bool = True) -> None:
        """Undo everything.  Raises HostError for what the kernel refused to undo; the rest is undone.

        Unless it *opens* the host again, the `unreachable` routes that keep packets for the overlay from leaving stay,
        with the rules that lead to them, for the next agent or `overlay down`.  Those of a first start that failed are
        not needed.
        """
        with contextlib.ExitStack() as rest:
            rest.callback(self.device.close)
            rest.callback(self._sockets.close)
            rest.callback(self.watch.close)
            rest.callback(self._routing.close)
            rest.callback(self._settings.restore)
            rest.callback(self._tunnel_errors.close)
            rest.callback(self._translations.close)
            rest.callback(self.rules.close)
            if opens or not self.is_relied_on or isinstance(self._routing, Prepared):
                self._routing.withdraw()
            else:
                log.warning(
                    "packets for the overlay stay blocked: `overlay up` carries them again, `overlay down --interface "
                    "%s` lets them leave by the other routes of this host",
                    self.interface,
                )

    def adopt(self, node: Node, endpoints: Endpoints, planned: Planned | None = None) -> list[UnderlaySocket]:
        """Change the host to what *node* requires, and return the sockets that were replaced, still open.

        *planned* is the plan, if it was computed before.  Raises HostError; then the host is as before.
        """
        before = None if self._adopted is None else self._adopted.planned
        planned = planned or planning.plan(node, endpoints, self.ask_paths(node, endpoints), self.interface)
        planned = self._fit(node, planned)
        with contextlib.ExitStack() as undo:
            opened = self._sockets.open(node, planned.plan.fwmark, undo)
            if before is None or planned.plan != before.plan:
                if before is not None:
                    undo.callback(self._go_back, before)
                self._apply(planned)
            undo.pop_all()
        self._adopted = _Adopted(node, endpoints, planned)
        replaced = self._sockets.take(opened, node.table.network.ttl)
        with contextlib.suppress(
            OSError
        ):  # without a free descriptor, this cannot be determined, and nothing changes
            self._tunnel_errors.prevent(frozenset().union(*modules.beside(node.encapsulations).values()))
        return replaced

    def leave(self, replaced: Iterable[UnderlaySocket], now: float) -> None:
        """Release *replaced* once the forwarder knows their successors; it still reads them for a while."""
        self._sockets.leave(replaced, now)

    def renew(self) -> None:
        """Prepare new sockets, and the tun as it was when opened, for the next forwarder.

        Raises HostError; then it may be called again.
        """
        self._sockets.renew(self._in_force.planned.plan.fwmark)
        self.device.restore()

    def close_left(self, now: float) -> None:
        """Close the replaced sockets that the forwarder no longer reads."""
        self._sockets.close_left(now)

    def is_affected_by(self, name: str, endpoint: Sockaddr) -> bool:
        """Return whether the peer *name* at *endpoint* may require other routes or a smaller MTU than at present."""
        node, planned = self._in_force.node, self._in_force.planned
        address = ip_address(endpoint[0].partition("%")[0])
        if planned.routed.lookup(address):
            return True
        mtu = self._routing.route_mtu(address, planned.plan.fwmark)
        tunnel = node.tunnels.get(name)
        if mtu is None or tunnel is None:
            return False
        room = mtu - tunnel.overheads[address.version]
        return room < min(planned.room, planned.plan.mtu)

    def check_device(self) -> str | None:
        """Ensure that the interface has its own name; if it was renamed, rename it back.

        Returns the other name.  Raises HostError if the interface is gone, or its name is taken.
        """
        present = self.device.name_now()
        if present == self.interface:
            return None
        self._is_touched = True  # also by the time it is down
        with contextlib.suppress(HostError):  # then the next line says what to do
            self._routing.name_back()
        self.device.check_present()
        return present

    def may_lack_routes(self) -> bool:
        """Return whether routes of ours may be gone, as far as `watch` was read, so that mend() needs those that are
        left.
        """
        self._is_touched |= self.watch.take_touched()
        return self._is_touched

    def read_routes(self) -> dict[RouteKind, RouteSet]:
        """Return our routes in the kernel.  Blocks; another thread may call this while nothing changes the host.

        Raises HostError.
        """
        return self._routing.read_routes()

    def mend(self, routes: dict[RouteKind, RouteSet] | None) -> str:
        """Restore what another program changed, and return the changes as fields of a log line; "" if there were none.

        *routes* are those of read_routes(), None if none of ours are gone.  Raises HostError.
        """
        planned, before = self._in_force.planned, self._routing.count
        fields = self._routing.changed(planned.plan)
        removed = before - self._routing.take_over(routes)
        self._is_touched &= routes is None
        try:
            self._routing.apply(planned.plan, planned.routes)
        except HostError:
            self._is_touched = True
            raise
        return " ".join([*fields, f"routes_removed={removed}"] if removed > 0 else fields)

    def overruns(self) -> int:
        """Return how many packets for the tun the kernel has dropped since this was made, because they were not read in
        time.
        """
        return max(0, overruns(self.interface) - self._overruns)

    def findings(
        self, node: Node, firewall: Firewall | None = None, checks: Checks = CHECKS
    ) -> list[Finding]:
        """Return the findings of *checks* on this host: what blocks traffic or slows it down."""
        return diagnose(replace(self._facts(node, sysctl.read), firewall=firewall), checks)

    @staticmethod
    def read_firewall() -> Firewall:
        """Return the packet filters of this host.  Blocks; may be called in any thread."""
        return read_firewall()

    def links(self) -> list[Link]:
        """Return the networks that this host is on, except by the tun; empty if the kernel does not report them."""
        try:
            return self._routing.links()
        except HostError:
            return []

    def learnt_mtus(self) -> Mapping[str, LearntMtu]:
        """Return what the kernel has learned about paths from ICMP errors, by address; empty if that is unknown."""
        try:
            return self._routing.learnt()
        except HostError:
            return {}

    def fix_settings(self, node: Node) -> None:
        """Correct the settings of the host that findings() names, until close(); the former values are recorded first.

        Raises HostError if the kernel refuses.
        """
        wanted: dict[str, int] = {}
        for fault in faults(self._facts(node, self._settings.read)):
            wanted |= dict(fault.before)
            wanted[fault.name] = fault.value
        if wanted:
            for name in self._settings.hold(wanted):
                log.info("set %s=%d until the end", sysctl.key(name), wanted[name])

    def devices(self, node: Node) -> list[str]:
        """Return the names of the tun and of the interfaces to endpoints, with those that they are made of."""
        return sorted({self.interface, *underlay_devices(self._facts(node, sysctl.read))})

    def _facts(self, node: Node, read: Callable[[str], int | None]) -> Facts:
        return Facts(
            node,
            self._in_force.planned.plan,
            self.device,
            self.udp,
            frozenset(self._in_force.endpoints),
            self._routing,
            read,
            is_icmp_refused=self._sockets.is_icmp_refused,
            lacking=self._routing.lacking if isinstance(self._routing, Prepared) else None,
            errors_prevented=self._tunnel_errors.prevented,
            room=self._in_force.planned.room,
            interfaces=LinkState(),
            way=ask_way,
        )

    def ask_paths(self, node: Node, endpoints: Endpoints) -> dict[str, int | None]:
        """Return the MTU of the paths to the hosts of *endpoints*, as far as they are queried; None means unknown."""
        mark = self.plan.fwmark if self.plan is not None else node.table.network.fwmark
        hosts = sorted({sockaddr[0] for _, sockaddr in endpoints})[:QUESTIONS]
        return {host: self._routing.route_mtu(ip_address(host.partition("%")[0]), mark) for host in hosts}

    def _fit(self, node: Node, planned: Planned) -> Planned:
        """Return *planned* as far as the host allows it."""
        plan = planned.plan
        if any(prefix.prefixlen for prefix in plan.policy_routes):
            plan = config.yield_to_links(plan, {link.network for link in self._routing.links()})
        if plan.policy_routes:
            plan = replace(plan, passing_uid=self._passing_uid)
        if plan.held:
            quiet = keep_to_tun((each.ip for each in plan.held), self._routing.links())
            plan = replace(plan, settings=(*plan.settings, *quiet))
        if isinstance(self._routing, Prepared):
            plan = self._routing.fit(plan, node.table.network.fwmark)
            if plan.mtu < planned.plan.mtu:
                return replace(planned, plan=plan, mtu_reason=f"as {self.interface} was prepared")
        return replace(planned, plan=plan)

    def _apply(self, planned: Planned) -> None:
        """Change routes and rules; marks are put on our sockets before the rules that use them, and removed after."""
        plan = planned.plan
        if plan.fwmark:
            self._sockets.mark(plan.fwmark)
        self._routing.apply(plan, planned.routes)
        if not plan.fwmark:
            self._sockets.mark(0)
        without = self._translations.hold(plan.rules, plan.limits)
        if without:
            log.warning("floods of new connections are not limited by the kernel reason=%s", without)
        for name in self._settings.hold(dict(plan.settings)):
            log.info("set %s=%d until the end", sysctl.key(name), dict(plan.settings)[name])

    def _go_back(self, before: Planned) -> None:
        self._is_touched = True
        with contextlib.suppress(HostError):
            self._apply(before)
