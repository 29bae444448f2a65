"""VRRP instances of keepalived, as groups of addresses that move between directors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from overlay.services.importing.plan import VrrpGroup
from overlay.services.importing.settings import BlockSettings
from peers.addresses import parse_host_address

if TYPE_CHECKING:
    from overlay.importing.places import FileLine, Remarks
    from overlay.importing.toml_text import Value
    from overlay.services.importing.blocks import Directive
    from peers.addresses import Address

# Specification (keepalived 2.2.7)
DEFAULT_PRIORITY = 100
PASSWORD_SIZE = 8  # RFC 2338 section 5.3.10; anything beyond is cut off
AT_TAKEOVER = {"garp_master_delay": "5", "garp_master_repeat": "5"}
"""How addresses are announced by default, in keepalived and here."""

# Ours
ANNOUNCED = "addresses are announced five times at takeover, again after 5 s, and then once a minute"
SETTLED = "the address is on the tunnel's device, never on another"
TRACKED = "VRRP tracks interfaces, the overlay and the quorum of services"
NOTIFIED = "no command runs when VRRP changes its state; quorum_up_command and its like run one for a service"
NOT_CARRIED = {
    "notify": NOTIFIED,
    "notify_master": NOTIFIED,
    "notify_backup": NOTIFIED,
    "notify_fault": NOTIFIED,
    "notify_stop": NOTIFIED,
    "notify_deleted": NOTIFIED,
    "notify_master_rx_lower_pri": NOTIFIED,
    "notify_priority_changes": NOTIFIED,
    "smtp_alert": "no mail is sent",
    "track_script": TRACKED,
    "track_file": TRACKED,
    "track_process": TRACKED,
    "track_bfd": TRACKED,
    "track_src_ip": TRACKED,
    "garp_master_delay": ANNOUNCED,
    "garp_master_repeat": ANNOUNCED,
    "garp_master_refresh": ANNOUNCED,
    "garp_master_refresh_repeat": ANNOUNCED,
    "garp_lower_prio_delay": ANNOUNCED,
    "garp_lower_prio_repeat": ANNOUNCED,
    "garp_extra_if": ANNOUNCED,
    "virtual_routes": "routes are those of the host's own configuration",
    "virtual_rules": "rules are those of the host's own configuration",
    "use_vmac": "addresses keep the Ethernet address of the interface",
    "use_vmac_addr": "addresses keep the Ethernet address of the interface",
    "vmac_xmit_base": "addresses keep the Ethernet address of the interface",
    "use_ipvlan": "addresses keep the Ethernet address of the interface",
    "mcast_dst_ip": "advertisements go to the group that RFC 9568 names, or to unicast addresses",
    "unicast_ttl": "advertisements have the TTL 255, which RFC 9568 requires",
    "promote_secondaries": SETTLED,
    "accept": "packets to the address go to its servers",
    "no_accept": "packets to the address go to its servers",
    "dont_track_primary": "an interface that is down cannot advertise",
}
OTHERWISE = "VRRP has no such setting here"


@dataclass(frozen=True, slots=True)
class VrrpDefaults:
    """The settings of ``global_defs`` for all instances."""

    version: int
    interface: str | None


def read_vrrp(directive: Directive, given: VrrpDefaults, remarks: Remarks) -> VrrpGroup | None:
    """Return the group for the vrrp_instance *directive*; None, with a remark, if it is invalid."""
    settings = BlockSettings(directive.content, remarks)
    router = settings.number("virtual_router_id", 1, 255)
    interface = settings.last("interface")
    device = given.interface if interface is None else interface.value
    version = settings.number("version", 2, 3) or given.version
    settings.each("state")  # it matters only at the start
    settings.each("lvs_sync_daemon_interface")  # directors here always synchronize flows
    for keyword, default in AT_TAKEOVER.items():
        found = settings.each(keyword)
        for each in found:
            if each.value != default:
                remarks.add(each.place, str(each), ANNOUNCED)
    if settings.each("native_ipv6") and version == 2:
        version = 3
    keys: dict[str, Value] = {"router": router or 0, "interface": device or ""}
    addresses = _addresses(settings, device, remarks)
    if version == 2 and addresses and addresses[0][2].version == 6:
        version = 3  # as in keepalived: version 2 has no IPv6
    if version == 2:
        keys["version"] = 2
    interval = settings.seconds("advert_int", 0.01, 255 if version == 2 else 40.95)
    if interval is not None and interval != 1:
        keys["interval"] = float(max(round(interval), 1)) if version == 2 else interval
    priority = settings.number("priority", 1, 255)
    _preemption(settings, keys)
    routers = _unicast(settings, remarks)
    if settings.each("unicast_peer"):
        keys["unicast"] = tuple(map(str, routers))
    _authentication(settings, version, keys, remarks)
    if tracked := _tracked(settings, remarks):
        keys["track_interfaces"] = tracked
    settings.remark(NOT_CARRIED, OTHERWISE)
    if not router or not device:
        missing = "virtual_router_id" if not router else "interface"
        remarks.add(directive.place, str(directive), f"has no {missing}, and is left out")
        return None
    return VrrpGroup(
        directive.place,
        str(directive),
        directive.value,
        tuple(addresses),
        tuple(keys.items()),
        priority or DEFAULT_PRIORITY,
        routers,
    )


def _preemption(settings: BlockSettings, keys: dict[str, Value]) -> None:
    is_off, is_on = settings.flag("nopreempt"), settings.each("preempt")
    if is_off and not is_on:
        keys["preempt"] = False
    delay = settings.seconds("preempt_delay", 0, 1000)
    if delay and not is_off:
        keys["preempt_delay"] = delay


def _addresses(
    settings: BlockSettings, device: str | None, remarks: Remarks
) -> list[tuple[FileLine, str, Address]]:
    found: list[tuple[FileLine, str, Address]] = []
    for block in settings.each("virtual_ipaddress", "virtual_ipaddress_excluded"):
        for entry in block.content:
            try:
                address = parse_host_address(entry.keyword.partition("/")[0])
            except ValueError as error:
                remarks.add(entry.place, str(entry), f"{entry.keyword} {error}; it is left out")
                continue
            found.append((entry.place, str(entry), address))
            options = list(entry.values)
            if len(options) > 1 and options[0] == "dev" and options[1] == device:
                options = options[2:]
            if options:
                remarks.add(entry.place, str(entry), f"{' '.join(options)} is left out: {SETTLED}")
    return found


def _unicast(settings: BlockSettings, remarks: Remarks) -> tuple[Address, ...]:
    """Return the address of this host, if given, and those of its unicast peers."""
    found: list[Address] = []
    own = settings.last("unicast_src_ip") or settings.last("mcast_src_ip")
    settings.each("unicast_src_ip", "mcast_src_ip")
    blocks = settings.each("unicast_peer")
    entries = [(own, own.value)] if own is not None else []
    entries += [(entry, entry.keyword) for block in blocks for entry in block.content]
    for entry, text in entries:
        try:
            address = parse_host_address(text)
        except ValueError as error:
            remarks.add(entry.place, str(entry), f"{text} {error}; it is left out")
            continue
        if address not in found:
            found.append(address)
    if blocks and own is None:
        remarks.add(
            blocks[0].place,
            "unicast_peer",
            "the address of this host is not among them; add it to unicast, as the file is the same on all directors",
        )
    return tuple(found)


def _authentication(settings: BlockSettings, version: int, keys: dict[str, Value], remarks: Remarks) -> None:
    for block in settings.each("authentication"):
        own = BlockSettings(block.content, remarks)
        kind, password = own.last("auth_type"), own.last("auth_pass")
        own.remark({}, OTHERWISE)
        if version == 3:
            remarks.add(block.place, "authentication", "version 3 of VRRP has none")
        elif kind is not None and kind.value != "PASS":
            remarks.add(kind.place, str(kind), "only passwords are supported, not signed headers")
        elif password is not None and password.value.isascii() and password.value.isprintable():
            text = password.value[:PASSWORD_SIZE].replace(" ", "")
            if text != password.value[:PASSWORD_SIZE]:
                remarks.add(
                    password.place,
                    "auth_pass",
                    "contains a space; write a password without one on all directors",
                )
            else:
                keys["password"] = text
        elif password is not None:
            remarks.add(
                password.place,
                "auth_pass",
                "contains characters other than ASCII; write another on all directors",
            )


def _tracked(settings: BlockSettings, remarks: Remarks) -> tuple[str, ...]:
    found: list[str] = []
    for block in settings.each("track_interface"):
        for entry in block.content:
            if entry.values:
                remarks.add(
                    entry.place,
                    str(entry),
                    "while the interface is down, this director does not take part; to lower its priority "
                    "instead, write track_weight",
                )
            found.append(entry.keyword)
    return tuple(dict.fromkeys(found))
