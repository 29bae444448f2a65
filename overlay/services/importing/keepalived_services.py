"""The content of one virtual_server of keepalived: its real servers and the keys of the service.

Contradictory settings are treated as in keepalived 2.2.7 (validate_check_config in check_data.c).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.services.importing import keepalived_addresses
from overlay.services.importing.keepalived_checks import (
    DEFAULT_DELAY_LOOP,
    DEFAULT_TIMEOUT,
    KEYWORDS,
    MOST_EVERY,
    MOST_TIMEOUT,
    Defaults,
    read_checks,
    read_command,
)
from overlay.services.importing.plan import PlannedTunnel, RealServer
from overlay.services.importing.settings import BlockSettings
from peers.encapsulation import GRE, IPIP

if TYPE_CHECKING:
    from overlay.importing.places import Remarks
    from overlay.importing.toml_text import Value
    from overlay.services.importing.blocks import Directive
    from overlay.services.importing.plan import Keys
    from peers.addresses import Address

# Specification (keepalived 2.2.7)
DEFAULT_PERSISTENCE = 360  # seconds; also of ipvsadm -p, whatever its manual says
MOST_PERSISTENCE = 31 * 86400
MOST_WEIGHT = 65535
SCHEDULERS = ("rr", "wrr", "lc", "wlc", "lblc", "sh", "mh", "dh", "fo", "ovf", "lblcr", "sed", "nq", "twos")

# Ours
INSTEAD = {"mh": "maglev", "twos": "wlc", "lblc": "maglev", "lblcr": "maglev"}
"""The scheduler to write for one of the kernel's; the others have the same names."""
MOST_CHECKS = 16  # of one server
MOST_FLOWS = 4_000_000

MAIL = "no mail is sent; up_command and its like run a program"
NAT = "answers of NAT servers must come back through the director; make them TUN servers"
DIRECT_ROUTING = "DR servers get the packets in frames of the director's own LAN; make them TUN servers"
FORWARDING = {"NAT": NAT, "DR": DIRECT_ROUTING}
NO_FLAG = "the scheduler has no such flag"
VIRTUAL = {
    "ha_suspend": "every director checks, whichever has the address",
    "omega": "no command runs when the agent stops",
    "smtp_alert": MAIL,
    "snmp_name": "the agent does not speak SNMP",
    "persistence_engine": "clients are distinguished by their address alone",
    "flag-1": NO_FLAG,
    "flag-2": NO_FLAG,
    "flag-3": NO_FLAG,
    "hashed": "it has no effect with ip_vs either",
    "sh-port": "sh chooses by the address of the client alone; maglev also takes its port",
    "mh-port": NO_FLAG,
    "sh-fallback": NO_FLAG,
    "mh-fallback": NO_FLAG,
}
REAL = {"smtp_alert": MAIL, "snmp_name": "the agent does not speak SNMP"}


class VirtualServer:
    """The content of one virtual_server, for the addresses and ports *entries*."""

    def __init__(
        self,
        directive: Directive,
        settings: BlockSettings,
        entries: list[tuple[Address, int | None]],
        remarks: Remarks,
    ) -> None:
        self._directive, self._settings, self._entries, self._remarks = directive, settings, entries, remarks
        protocol = settings.last("protocol")
        name = "udp" if protocol is None else protocol.value.lower()
        if protocol is not None and name not in {"tcp", "udp", "sctp"}:
            remarks.add(
                protocol.place, str(protocol), "is not TCP, UDP or SCTP; it becomes UDP, as with keepalived"
            )
            name = "udp"
        self.protocol = name
        self.has_real_servers = any(each.keyword == "real_server" for each in directive.content)
        self._method = settings.last("lb_kind", "lvs_method")
        self._scheduler_name = ""
        self._weight = settings.number("weight", 1, MOST_WEIGHT) or 1

    def is_tunnelled(self) -> bool:
        """Return whether its servers may be carried over; adds remarks if not."""
        servers = [each for each in self._directive.content if each.keyword == "real_server"]
        if any(inner.keyword == "lvs_method" for server in servers for inner in server.content):
            return True  # all are examined
        method = self._method
        if method is None:
            self._remarks.add(
                self._directive.place, str(self._directive), f"has no lb_kind, which is NAT: {NAT}"
            )
            return False
        if method.value != "TUN":
            reason = FORWARDING.get(method.value, "is not NAT, DR or TUN")
            self._remarks.add(method.place, str(method), f"{reason}; {self._directive} is left out")
            return False
        return True

    def read(self, certificate: Keys) -> tuple[tuple[RealServer, ...], RealServer | None, Keys]:
        """Return its servers, sorry server and keys."""
        settings, remarks = self._settings, self._remarks
        commands: list[dict[str, Directive]] = []
        inhibits: list[tuple[Directive, bool]] = []
        is_inhibited = bool(settings.each("inhibit_on_failure"))
        defaults = self._defaults()
        servers: dict[Address, RealServer] = {}
        for directive in settings.each("real_server"):
            server = self._real_server(directive, defaults, certificate, commands, inhibits)
            if server is not None and server.address in servers:
                remarks.add(
                    directive.place,
                    str(directive),
                    f"is the same server as in line {servers[server.address].place.line}: TUN servers use "
                    "the service's ports",
                )
            elif server is not None:
                servers[server.address] = server
        keys: dict[str, Value] = {"scheduler": self._scheduler(), **self._persistence()}
        ops = settings.each("ops")
        if ops and self.protocol == "udp":
            keys["one_packet"] = True
        elif ops:
            remarks.add(ops[-1].place, "ops", "is for UDP, and keepalived ignores it, too")
        total = sum(each.weight for each in servers.values())
        keys |= self._quorum(total)
        keys |= self._on_failure(is_inhibited, inhibits)
        keys |= self._commands(commands, len(settings.each("real_server")))
        sorry = self._sorry()
        settings.each("ip_family")  # implied by the addresses
        if not any(commands) and not settings.each("quorum_down"):
            settings.each("omega")  # there is no command to run
        settings.remark(VIRTUAL)
        return tuple(servers.values()), sorry, tuple(keys.items())

    def _defaults(self) -> Defaults:
        settings = self._settings
        host = settings.last("virtualhost")
        ports = {port for _, port in self._entries}
        delay = settings.seconds("delay_before_retry", 0, MOST_EVERY)
        retries = settings.number("retry", 1, 2**32 - 1)
        return Defaults(
            every=settings.seconds("delay_loop", 0.1, MOST_EVERY) or DEFAULT_DELAY_LOOP,
            timeout=settings.seconds("connect_timeout", 0.1, MOST_TIMEOUT) or DEFAULT_TIMEOUT,
            start_down=bool(settings.flag("alpha")),
            retries=retries,
            retry_delay=delay,
            warmup=settings.seconds("warmup", 0, MOST_EVERY),
            host=None if host is None else host.value,
            port=next(iter(ports)) if len(ports) == 1 else None,
            addresses=tuple(address for address, _ in self._entries),
            protocol=self.protocol,
            is_single_port=len(ports) == 1 and None not in ports,
        )

    def _real_server(
        self,
        directive: Directive,
        given: Defaults,
        certificate: Keys,
        commands: list[dict[str, Directive]],
        inhibits: list[tuple[Directive, bool]],
    ) -> RealServer | None:
        remarks = self._remarks
        port = directive.values[1] if len(directive.values) > 1 else None
        found = keepalived_addresses.read_address(directive, directive.value, port, remarks)
        settings = BlockSettings(directive.content, remarks)
        tunnel = read_tunnel(settings.last("lvs_method") or self._method, directive, remarks)
        if found is None or tunnel is None:
            return None
        address, own_port = found
        ports = {port for _, port in self._entries}
        if own_port is not None and own_port not in ports:
            remarks.add(
                directive.place,
                str(directive),
                f"a TUN server uses the service's port, with keepalived too; if {own_port} is meant, "
                f"write port = {own_port}",
            )
        host = settings.last("virtualhost")
        alpha = settings.flag("alpha")
        retry_delay = settings.seconds("delay_before_retry", 0, MOST_EVERY)
        warmup = settings.seconds("warmup", 0, MOST_EVERY)
        own = Defaults(
            every=settings.seconds("delay_loop", 0.1, MOST_EVERY) or given.every,
            timeout=settings.seconds("connect_timeout", 0.1, MOST_TIMEOUT) or given.timeout,
            start_down=given.start_down if alpha is None else alpha,
            retries=settings.number("retry", 1, 2**32 - 1) or given.retries,
            retry_delay=given.retry_delay if retry_delay is None else retry_delay,
            warmup=given.warmup if warmup is None else warmup,
            host=given.host if host is None else host.value,
            port=own_port if own_port in ports else given.port,
            addresses=(*given.addresses, address),
            protocol=given.protocol,
            is_single_port=given.is_single_port,
        )
        checks = [check for each in settings.each(*KEYWORDS) for check in read_checks(each, own, remarks)]
        checks = [check + certificate if ("kind", "https") in check else check for check in checks]
        inhibit = settings.flag("inhibit_on_failure")
        if inhibit is not None:
            inhibits.append((settings.each("inhibit_on_failure")[-1], inhibit))
        commands.append({each.keyword: each for each in settings.each("notify_up", "notify_down")})
        weight = settings.number("weight", 0, MOST_WEIGHT)
        server = RealServer(
            directive.place,
            str(directive),
            address,
            self._weight if weight is None else weight,
            *self._thresholds(settings),
            tunnel,
            tuple(dict.fromkeys(checks))[:MOST_CHECKS],
        )
        settings.remark(REAL)
        return server

    def _thresholds(self, settings: BlockSettings) -> tuple[int, int]:
        upper = settings.number("uthreshold", 0, MOST_FLOWS) or 0
        lower = settings.number("lthreshold", 0, MOST_FLOWS) or 0
        if lower > upper:
            directive = settings.each("lthreshold")[-1]
            self._remarks.add(directive.place, str(directive), "is above uthreshold, where it has no effect")
            lower = 0
        return upper, lower

    def _scheduler(self) -> str:
        settings = self._settings
        directive = settings.last("lb_algo", "lvs_sched")
        name = "wlc" if directive is None else directive.value
        if name not in SCHEDULERS:
            assert directive is not None
            self._remarks.add(
                directive.place, str(directive), "is not a scheduler of keepalived, which uses wlc instead"
            )
            name = "wlc"
        self._scheduler_name = name
        if name in {"sh", "mh"}:
            settings.each(f"{name}-fallback", "flag-1")  # servers that are down are always skipped
        if name == "mh":
            settings.each("mh-port", "flag-2")
        return INSTEAD.get(name, name)

    def _persistence(self) -> dict[str, Value]:
        settings = self._settings
        asked = settings.each("persistence_timeout")
        seconds = 0
        if asked:
            seconds = DEFAULT_PERSISTENCE
            if asked[-1].value:
                seconds = settings.number("persistence_timeout", 1, MOST_PERSISTENCE) or 0
        granularity = settings.last("persistence_granularity")
        if granularity is not None or any(port is None for _, port in self._entries):
            seconds = seconds or DEFAULT_PERSISTENCE
        if self._scheduler_name == "mh" and not settings.each("mh-port", "flag-2"):
            seconds = seconds or DEFAULT_PERSISTENCE  # each client has one server, whatever its port
        found: dict[str, Value] = {"persistence": seconds} if seconds else {}
        if granularity is not None:
            found |= keepalived_addresses.read_granularity(
                granularity, {address.version for address, _ in self._entries}, self._remarks
            )
        return found

    def _quorum(self, total: int) -> dict[str, Value]:
        """Return the quorum as keepalived computes it: at most the sum of weights, with hysteresis below it."""
        quorum = min(self._settings.number("quorum", 1, 2**32 - 1) or 1, max(total, 1))
        hysteresis = min(self._settings.number("hysteresis", 0, 2**32 - 1) or 0, quorum - 1)
        found: dict[str, Value] = {"quorum": quorum} if quorum > 1 else {}
        if hysteresis:
            found["hysteresis"] = hysteresis
        return found

    def _on_failure(self, is_inhibited: bool, own: list[tuple[Directive, bool]]) -> dict[str, Value]:
        """Return the key for the flows of a failing server; here it applies to a whole service."""
        count_of_servers = len(self._settings.each("real_server"))
        if len(own) == count_of_servers and len({inhibit for _, inhibit in own}) == 1:
            is_inhibited = own[0][1]
        for directive, inhibit in own:
            if inhibit != is_inhibited:
                self._remarks.add(
                    directive.place,
                    str(directive),
                    "on_failure applies to a whole service; its other servers differ",
                )
        return {"on_failure": "keep"} if is_inhibited else {}

    def _commands(self, commands: list[dict[str, Directive]], servers: int) -> dict[str, Value]:
        settings, found = self._settings, {}
        for keyword, key in (("quorum_up", "quorum_up_command"), ("quorum_down", "quorum_down_command")):
            directive = settings.last(keyword)
            if directive is not None and (command := read_command(directive, self._remarks)):
                found[key] = command
        for keyword, key in (("notify_up", "up_command"), ("notify_down", "down_command")):
            written = [each[keyword] for each in commands if keyword in each]
            if not written:
                continue
            if len(written) == servers and len({each.text for each in written}) == 1:
                if command := read_command(written[0], self._remarks):
                    found[key] = command
                continue
            for directive in written:
                self._remarks.add(
                    directive.place,
                    str(directive),
                    f"{key} applies to a whole service, and reads on its standard input which server is "
                    "meant; other servers differ",
                )
        return dict(found)

    def _sorry(self) -> RealServer | None:
        settings, remarks = self._settings, self._remarks
        directive = settings.last("sorry_server")
        # Flows at the sorry server stay there anyway
        settings.each("sorry_server_inhibit")
        method = settings.last("sorry_server_lvs_method") or self._method
        if directive is None:
            return None
        port = directive.values[1] if len(directive.values) > 1 else None
        found = keepalived_addresses.read_address(directive, directive.value, port, remarks)
        tunnel = read_tunnel(method, directive, remarks)
        if found is None or tunnel is None:
            return None
        address, own_port = found
        if own_port is not None and own_port not in {port for _, port in self._entries}:
            remarks.add(
                directive.place,
                str(directive),
                "a TUN server uses the service's port, with keepalived too",
            )
        return RealServer(directive.place, str(directive), address, tunnel=tunnel)


def read_tunnel(method: Directive | None, owner: Directive, remarks: Remarks) -> PlannedTunnel | None:
    """Return the tunnel to a server with *method*; None, with a remark, if there is none."""
    if method is None:
        remarks.add(owner.place, str(owner), f"has no lvs_method, which is NAT: {NAT}")
        return None
    if method.value != "TUN":
        reason = FORWARDING.get(method.value, "is not NAT, DR or TUN")
        remarks.add(method.place, str(method), f"{reason}; {owner} is left out")
        return None
    options = list(method.values[1:])
    kind, has_checksums = IPIP, False
    while options:
        option = options.pop(0)
        if option == "type" and options:
            kind = options.pop(0)
        elif option == "port" and options:
            options.pop(0)
        has_checksums = has_checksums or option == "csum"
    if kind in {IPIP, GRE}:
        return PlannedTunnel(kind, has_checksums and kind == GRE)
    if kind == "gue":
        remarks.add(
            method.place,
            str(method),
            f"GUE is not supported; make it a tunnel by ipip or gre; {owner} is left out",
        )
    else:
        remarks.add(method.place, str(method), f"is not a tunnel of keepalived; {owner} is left out")
    return None
