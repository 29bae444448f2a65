"""keepalived.conf: its virtual servers, their groups, real servers and VRRP instances, as a plan.

Every directive takes effect in the plan, is the default here, or becomes a remark.  The meaning of directives, and the
treatment of contradictory ones, follow keepalived 2.2.7 (validate_check_config in check_data.c).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

from overlay.importing.places import FileLine, UnreadableError
from overlay.services.importing import blocks, keepalived_addresses
from overlay.services.importing.keepalived_services import MAIL, MOST_PERSISTENCE, VirtualServer
from overlay.services.importing.keepalived_vrrp import ANNOUNCED, VrrpDefaults, read_vrrp
from overlay.services.importing.lines import read_lines
from overlay.services.importing.plan import Plan, VirtualService
from overlay.services.importing.settings import BlockSettings

if TYPE_CHECKING:
    from overlay.importing.places import Remarks
    from overlay.importing.toml_text import Value
    from overlay.services.importing.blocks import Directive
    from overlay.services.importing.lines import File, Include
    from overlay.services.importing.plan import Keys
    from peers.addresses import Address

# Ours
DEFAULT_IDLE = {"idle_tcp": 900, "idle_fin": 120, "idle_udp": 300}
"""The default timeouts of ip_vs, as keys of a peers file."""

ROOTS = {
    "SSL": "",
    "global_defs": "",
    "virtual_server": "",
    "virtual_server_group": "",
    "vrrp_instance": "",
    "vrrp_sync_group": "each group of addresses moves by itself; write the services of one director with the same vrrp",
    "vrrp_script": "VRRP tracks interfaces, the overlay and the quorum of services, and no scripts",
    "vrrp_track_process": "VRRP tracks interfaces, the overlay and the quorum of services, and no processes",
    "vrrp_track_file": "VRRP tracks interfaces, the overlay and the quorum of services, and no files",
    "track_file": "VRRP tracks interfaces, the overlay and the quorum of services, and no files",
    "track_group": "VRRP tracks interfaces, the overlay and the quorum of services, and no groups",
    "bfd_instance": "the agent does not speak BFD; directors watch each other by their sessions or by VRRP",
    "garp_group": "addresses are announced at takeover and once a minute",
    "static_ipaddress": "addresses of the host are set by its own configuration",
    "static_routes": "routes of the host are set by its own configuration",
    "static_rules": "rules of the host are set by its own configuration",
    "static_track_group": "routes of the host are set by its own configuration",
    "linkbeat_interfaces": "this is about how keepalived itself runs",
    "linkbeat_use_polling": "this is about how keepalived itself runs",
    "interface_up_down_delays": "a change of an interface's state takes effect at once",
    "net_namespace": "run the agent in the network namespace, as ip netns exec does",
    "net_namespace_ipvs": "run the agent in the network namespace, as ip netns exec does",
    "namespace_with_ipsets": "this is about how keepalived itself runs",
    "use_pid_dir": "this is about how keepalived itself runs",
    "instance": "this is about how keepalived itself runs",
    "child_wait_time": "this is about how keepalived itself runs",
}
"""The keywords at the top level; those with a reason are not carried over."""

GLOBAL = {
    "notification_email": MAIL,
    "notification_email_from": MAIL,
    "smtp_server": MAIL,
    "smtp_helo_name": MAIL,
    "smtp_connect_timeout": MAIL,
    "smtp_alert": MAIL,
    "smtp_alert_checker": MAIL,
    "smtp_alert_vrrp": MAIL,
    "no_email_faults": MAIL,
    "no_checker_emails": MAIL,
    "script_user": "scripts run without the agent's privileges, whatever user is named",
    "enable_script_security": "scripts run without the agent's privileges, whoever may write them",
    "rs_init_notifies": "commands run when a state changes, not at the start",
    "lvs_flush": "an earlier run leaves nothing to remove",
    "lvs_flush_on_stop": "services end with the agent",
    "lvs_flush_onstop": "services end with the agent",
    "router_id": "it is the name in keepalived's mails",
    **{
        f"vrrp_{keyword}": ANNOUNCED
        for keyword in (
            *("garp_master_delay", "garp_master_repeat", "garp_master_refresh", "garp_master_refresh_repeat"),
            *(
                "garp_lower_prio_delay",
                "garp_lower_prio_repeat",
                "garp_interval",
                "gna_interval",
                "garp_extra_if",
            ),
        )
    },
}


def read_keepalived(file: File, include: Include, remarks: Remarks, config_id: str | None = None) -> Plan:
    """Return the plan for *file*, with the files that it includes.

    Adds remarks for what cannot be carried over.  Raises UnreadableError for anything else.
    """
    directives = blocks.parse(read_lines(file, include, remarks, config_id))
    if not any(each.keyword in ROOTS for each in directives):
        raise UnreadableError(
            directives[0].place if directives else FileLine(file.path, 1),
            "this is not a configuration of keepalived: it has no virtual_server; name its keepalived.conf",
        )
    return _Reader(directives, remarks).plan()


@dataclass(frozen=True, slots=True)
class _Group:
    """A virtual_server_group: its entries in the order of the file."""

    entries: tuple[tuple[Address, int | None], ...]


class _Reader:
    def __init__(self, directives: list[Directive], remarks: Remarks) -> None:
        self._directives, self._remarks = directives, remarks
        self._groups: dict[str, _Group] = {}
        self._idle: Keys = ()
        self._certificate: Keys = ()
        self._taken: dict[tuple[Address, int | None, str], FileLine] = {}
        self._names: set[str] = set()

    def plan(self) -> Plan:
        roots: dict[str, list[Directive]] = {}
        for directive in self._directives:
            roots.setdefault(directive.keyword, []).append(directive)
            reason = ROOTS.get(directive.keyword, "keepalived has no such keyword here")
            if reason:
                self._remarks.add(directive.place, str(directive), reason)
        vrrp = self._read_global([each for root in roots.get("global_defs", ()) for each in root.content])
        for directive in roots.get("SSL", ()):
            self._read_ssl(directive)
        for directive in roots.get("virtual_server_group", ()):
            entries = keepalived_addresses.read_group(directive, self._remarks)
            self._groups.setdefault(directive.value, _Group(entries))
        services = tuple(
            service
            for directive in roots.get("virtual_server", ())
            for service in self._virtual_server(directive)
        )
        groups = [read_vrrp(each, vrrp, self._remarks) for each in roots.get("vrrp_instance", ())]
        return Plan(services, tuple(group for group in groups if group is not None))

    def _read_global(self, directives: list[Directive]) -> VrrpDefaults:
        settings = BlockSettings(directives, self._remarks)
        settings.each("lvs_sync_daemon")  # directors here always synchronize flows
        timeouts = settings.last("lvs_timeouts")
        if timeouts is not None:
            self._idle = self._timeouts(timeouts)
        version = settings.number("vrrp_version", 2, 3)
        interface = settings.last("default_interface")
        settings.remark(GLOBAL, "this is about how keepalived itself runs")
        return VrrpDefaults(version or 2, None if interface is None else interface.value)

    def _timeouts(self, directive: Directive) -> Keys:
        names = {"tcp": "idle_tcp", "tcpfin": "idle_fin", "udp": "idle_udp"}
        found: dict[str, Value] = {}
        values = iter(directive.values)
        for name in values:
            text = next(values, "")
            if (
                name not in names
                or not text.isascii()
                or not text.isdigit()
                or not 1 <= int(text[:9]) <= MOST_PERSISTENCE
            ):
                self._remarks.add(
                    directive.place, f"lvs_timeouts {name} {text}".rstrip(), "is not a time-out in seconds"
                )
            else:
                found[names[name]] = int(text)
        return tuple(found.items())

    def _read_ssl(self, directive: Directive) -> None:
        settings = BlockSettings(directive.content, self._remarks)
        certificate, key = settings.last("certificate"), settings.last("key")
        if certificate is not None and key is not None:
            self._certificate = (("certificate_file", certificate.value), ("key_file", key.value))
        elif certificate is not None or key is not None:
            self._remarks.add(
                directive.place, "SSL", "has only one of certificate and key, which need each other"
            )
        reasons = {
            "password": "the file with a client's key must not have a password",
            "ca": "keepalived does not verify certificates; to verify them, write verify = true and ca_file",
        }
        settings.remark(reasons)

    def _virtual_server(self, directive: Directive) -> list[VirtualService]:
        """Return the services for a virtual_server: several if its group has different ports."""
        entries = self._entries(directive)
        if not entries:
            return []
        settings = BlockSettings(directive.content, self._remarks)
        own = VirtualServer(directive, settings, entries, self._remarks)
        if not own.is_tunnelled():
            return []
        entries = self._without_taken(directive, entries, own.protocol)
        if not entries:
            return []
        servers, sorry, keys = own.read(self._certificate)
        if not servers:
            if not own.has_real_servers:
                self._remarks.add(directive.place, str(directive), "has no real_server, and is ignored")
            else:
                self._remarks.add(
                    directive.place,
                    str(directive),
                    "is left out, because none of its servers could be carried over",
                )
            return []
        return [
            VirtualService(
                directive.place,
                str(directive),
                self._name(directive, addresses, ports, own.protocol),
                addresses,
                ports,
                own.protocol,
                (*keys, *idle_keys(dict(self._idle), own.protocol)),
                servers,
                sorry,
            )
            for addresses, ports in _arranged(entries)
        ]

    def _entries(self, directive: Directive) -> list[tuple[Address, int | None]]:
        kind = directive.value
        if kind == "fwmark":
            self._remarks.add(directive.place, str(directive), keepalived_addresses.MARKS)
            return []
        if kind == "group":
            name = directive.values[1] if len(directive.values) > 1 else ""
            if name not in self._groups:
                self._remarks.add(
                    directive.place, str(directive), "the file has no virtual_server_group of this name"
                )
                return []
            entries = list(dict.fromkeys(self._groups[name].entries))
            if not entries:
                self._remarks.add(
                    directive.place, str(directive), "nothing of its group could be carried over"
                )
            return entries
        port = directive.values[1] if len(directive.values) > 1 else None
        found = keepalived_addresses.read_address(directive, kind, port, self._remarks)
        return [] if found is None else [found]

    def _without_taken(
        self, directive: Directive, entries: list[tuple[Address, int | None]], protocol: str
    ) -> list[tuple[Address, int | None]]:
        free = []
        for address, port in entries:
            earlier = self._taken.setdefault((address, port, protocol), directive.place)
            if earlier is directive.place:
                free.append((address, port))
            else:
                self._remarks.add(
                    directive.place,
                    str(directive),
                    f"{address} with this port is also in line {earlier.line}",
                )
        return free

    def _name(
        self, directive: Directive, addresses: tuple[Address, ...], ports: tuple[int, ...], protocol: str
    ) -> str:
        return service_name(
            directive.values[1] if directive.value == "group" else None,
            addresses,
            ports,
            protocol,
            self._names,
        )


def idle_keys(idle: dict[str, Value], protocol: str) -> Keys:
    """Return those of the timeouts *idle* that apply to a service of *protocol*."""
    meant = {"tcp": ("idle_tcp", "idle_fin"), "udp": ("idle_udp",)}.get(protocol, ())
    return tuple((key, value) for key, value in idle.items() if key in meant and value != DEFAULT_IDLE[key])


def service_name(
    group: str | None, addresses: tuple[Address, ...], ports: tuple[int, ...], protocol: str, taken: set[str]
) -> str:
    """Return a name that is not in *taken*, and add it there: from the *group*, or from the address, protocol and
    port.
    """
    first = str(addresses[0]).replace(":", "-")
    name = "-".join([first, protocol, *([str(ports[0])] if ports else [])])
    if group is not None:
        name = "".join(
            each if each.isascii() and (each.isalnum() or each in "._-") else "-" for each in group
        )[:50]
    candidates = (name if number == 1 else f"{name}-{number}" for number in count(1))
    found = next(each for each in candidates if each and each not in taken)
    taken.add(found)
    return found


def _arranged(
    entries: list[tuple[Address, int | None]],
) -> list[tuple[tuple[Address, ...], tuple[int, ...]]]:
    """Return *entries* grouped into addresses with the same ports; no ports stand for every port."""
    ports_of: dict[Address, list[int | None]] = {}
    for address, port in entries:
        ports_of.setdefault(address, []).append(port)
    addresses_of: dict[tuple[int, ...], list[Address]] = {}
    for address, ports in ports_of.items():
        written = sorted(port for port in ports if port is not None)
        if None in ports:  # in addition to single ports: the narrower service wins
            addresses_of.setdefault((), []).append(address)
        if written:
            addresses_of.setdefault(tuple(written), []).append(address)
    return [
        (tuple(addresses[start : start + 256]), ports[first : first + 256])
        for ports, addresses in addresses_of.items()
        for start in range(0, len(addresses), 256)
        for first in range(0, len(ports) or 1, 256)
    ]
