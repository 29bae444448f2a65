"""Rules of ipvsadm, as printed by ``ipvsadm -Sn`` and written by people for ``ipvsadm -R``, as a plan.

A line is one call of ipvsadm 1.31 without its name.  The calls are executed on an empty table, whose content at the end
is the plan.  A call that ipvsadm would refuse because of the table becomes a remark, because ``-R`` continues after it;
one that ipvsadm cannot read ends the reading, as in ipvsadm.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from overlay.importing.places import FileLine, UnreadableError
from overlay.services.importing.calls import NUMBER, Call
from overlay.services.importing.keepalived import idle_keys, service_name
from overlay.services.importing.keepalived_addresses import MARKS, prefix_keys
from overlay.services.importing.keepalived_services import (
    DEFAULT_PERSISTENCE,
    DIRECT_ROUTING,
    INSTEAD,
    MOST_FLOWS,
    MOST_PERSISTENCE,
    MOST_WEIGHT,
    NAT,
    SCHEDULERS,
)
from overlay.services.importing.plan import Plan, PlannedTunnel, RealServer, VirtualService
from peers.addresses import parse_host_address
from peers.encapsulation import GRE, IPIP

if TYPE_CHECKING:
    from collections.abc import Callable

    from overlay.importing.places import Remarks
    from overlay.importing.toml_text import Value
    from overlay.services.importing.lines import File
    from peers.addresses import Address

PortOf: TypeAlias = "Callable[[str, str], int | None]"
"""Returns the port of a service name and a protocol, as in /etc/services; None if it has none."""

# Specification (ipvsadm 1.31)
PROTOCOLS = {"t": "tcp", "u": "udp", "sctp": "sctp"}
FLAGS = {
    "sh": ("sh-fallback", "sh-port", "flag-1", "flag-2", "flag-3"),
    "mh": ("mh-fallback", "mh-port", "flag-1", "flag-2", "flag-3"),
}
DEFAULT_SCHEDULER = "wlc"
LARGEST = 2**31 - 1

# Ours
MOST_RULES = 200_000

_PROGRAM = re.compile(r"(?:.*/)?ipvsadm")


@dataclass(slots=True)
class _Service:
    place: FileLine
    subject: str
    address: Address
    port: int
    protocol: str
    keys: dict[str, Value] = field(default_factory=dict)
    servers: dict[tuple[Address, int], RealServer] = field(default_factory=dict)
    is_refused: bool = False  # one of its servers could not be carried over


Key: TypeAlias = "tuple[str, str, int]"
"""Protocol, address as text and port of a service; for a service by mark, ``mark``, the mark and the IP version."""


def read_rules(file: File, port_of: PortOf, remarks: Remarks) -> Plan:
    """Return the plan for the rules in *file*.

    Adds remarks for what cannot be carried over.  Raises UnreadableError for anything but rules of ipvsadm.
    """
    reader = _Reader(port_of, remarks)
    lines = file.text.removeprefix("\ufeff").split("\n")
    if len(lines) > MOST_RULES:
        raise UnreadableError(
            FileLine(file.path, MOST_RULES), f"there are more than {MOST_RULES} rules; write fewer"
        )
    is_empty = True
    for number, line in enumerate(lines, 1):
        place = FileLine(file.path, number)
        if "\0" in line:
            raise UnreadableError(
                place, "contains a null character, so this is not text; name a file with rules"
            )
        words = line.partition("#")[0].split()
        if words[:1] == ["sudo"]:
            words = words[1:]
        if words and _PROGRAM.fullmatch(words[0]):
            words = words[1:]
        if words:
            is_empty = False
            reader.carry_out(place, words)
    if is_empty:
        raise UnreadableError(FileLine(file.path, 1), "the file has no rules; write what ipvsadm -Sn prints")
    return reader.plan()


class _Reader:
    def __init__(self, port_of: PortOf, remarks: Remarks) -> None:
        self._port_of, self._remarks = port_of, remarks
        self._services: dict[Key, _Service] = {}
        self._left_out: set[Key] = set()
        self._idle: dict[str, Value] = {}

    def carry_out(self, place: FileLine, words: list[str]) -> None:
        """Execute one call.  Raises UnreadableError for an invalid one."""
        call = Call(place, words)
        match call.command:
            case "A":
                self._add(call, is_edit=False)
            case "E":
                self._add(call, is_edit=True)
            case "D":
                self._delete(call)
            case "C":
                self._services.clear()
                self._left_out.clear()
            case "a" | "e":
                self._add_server(call)
            case "d":
                self._delete_server(call)
            case "set":
                self._set(call)
            case _:  # the others change nothing, or are what directors here always do
                pass

    def plan(self) -> Plan:
        """Return the plan after the calls so far."""
        names: set[str] = set()
        services = []
        for each in self._services.values():
            if each.is_refused and not each.servers:
                self._remarks.add(
                    each.place, each.subject, "is left out, because none of its servers could be carried over"
                )
                continue
            ports = (each.port,) if each.port else ()
            services.append(
                VirtualService(
                    each.place,
                    each.subject,
                    service_name(None, (each.address,), ports, each.protocol, names),
                    (each.address,),
                    ports,
                    each.protocol,
                    (*each.keys.items(), *idle_keys(self._idle, each.protocol)),
                    tuple(each.servers.values()),
                )
            )
        return Plan(tuple(services))

    def _add(self, call: Call, *, is_edit: bool) -> None:
        key, address = self._key(call)
        if key in self._left_out and not is_edit:
            self._remarks.add(call.place, call.subject, "the service already exists")
            return
        if key[0] == "mark" or address is None:
            self._left_out.add(key)
            if key[0] == "mark":
                self._remarks.add(call.place, call.subject, f"{MARKS}; its servers are left out with it")
            return
        if "o" in call.options and key[0] != "udp":
            raise UnreadableError(call.place, "one-packet scheduling is for UDP; remove -o")
        keys = self._keys(call, key, address)
        known = self._services.get(key)
        if is_edit and known is None:
            self._remarks.add(call.place, call.subject, "the service does not exist")
            return
        if not is_edit and known is not None:
            self._remarks.add(
                call.place, call.subject, f"the service already exists, by line {known.place.line}"
            )
            return
        if known is not None:
            known.keys = keys
            return
        self._services[key] = _Service(call.place, call.subject, address, key[2], key[0], keys)

    def _keys(self, call: Call, key: Key, address: Address) -> dict[str, Value]:
        scheduler = call.options.get("s") or DEFAULT_SCHEDULER
        if scheduler not in SCHEDULERS:
            self._remarks.add(
                call.place, f"-s {scheduler}", f"the scheduler is not known; it becomes {DEFAULT_SCHEDULER}"
            )
            scheduler = DEFAULT_SCHEDULER
        keys: dict[str, Value] = {"scheduler": INSTEAD.get(scheduler, scheduler)}
        persistence = 0
        if "p" in call.options:
            persistence = call.number("p", 1, MOST_PERSISTENCE) if call.options["p"] else DEFAULT_PERSISTENCE
        if not key[2] and not persistence:
            raise UnreadableError(call.place, "a service without a port must be persistent; write -p")
        flags = [flag for flag in call.options.get("b", "").split(",") if flag]
        self._apply_flags(call, scheduler, flags)
        if scheduler == "mh" and not {"mh-port", "flag-2"} & set(flags):
            persistence = persistence or DEFAULT_PERSISTENCE  # each client has one server, whatever its port
        if persistence:
            keys["persistence"] = persistence
        mask = call.options.get("M")
        if mask is not None and persistence:
            keys |= prefix_keys(call.place, f"-M {mask}", mask, {address.version}, self._remarks)
        if "o" in call.options:
            keys["one_packet"] = True
        if "pe" in call.options:
            reason = "clients are distinguished by their address alone"
            self._remarks.add(call.place, f"--pe {call.options['pe']}", reason)
        return keys

    def _apply_flags(self, call: Call, scheduler: str, flags: list[str]) -> None:
        for flag in flags:
            if flag not in FLAGS.get(scheduler, ("flag-1", "flag-2", "flag-3")):
                raise UnreadableError(call.place, f"the scheduler {scheduler} has no flag {flag}; correct -b")
            is_passed_over = flag in {"sh-fallback", "mh-fallback"} or (
                scheduler in FLAGS and flag == "flag-1"
            )
            is_by_port = flag == "mh-port" or (scheduler == "mh" and flag == "flag-2")
            if is_passed_over or is_by_port:
                continue
            reason = "the scheduler has no such flag"
            if scheduler == "sh" and flag in {"sh-port", "flag-2"}:
                reason = "sh chooses by the address of the client alone; maglev also takes its port"
            self._remarks.add(call.place, f"-b {flag}", reason)

    def _delete(self, call: Call) -> None:
        key, _ = self._key(call)
        if key in self._left_out:
            self._left_out.discard(key)
        elif self._services.pop(key, None) is None:
            self._remarks.add(call.place, call.subject, "the service does not exist")

    def _add_server(self, call: Call) -> None:
        key, _ = self._key(call)
        service = self._services.get(key)
        methods = [letter for letter in ("g", "i", "m") if letter in call.options]
        if len(methods) > 1:
            raise UnreadableError(call.place, "has more than one of -g, -i and -m; write -i")
        if "r" not in call.options:
            raise UnreadableError(call.place, "names no server; write -r ADDRESS")
        weight = call.number("w", 0, LARGEST) if "w" in call.options else 1
        upper, lower = (call.number(each, 0, LARGEST) if each in call.options else 0 for each in ("x", "y"))
        if service is None:
            if key not in self._left_out:
                self._remarks.add(call.place, call.subject, "the service does not exist")
            return
        found = self._address(call, call.options["r"], service.protocol)
        if methods != ["i"]:
            service.is_refused = True
            if found is not None:
                service.servers.pop((found[0], 0), None)
            direct = f"{'-g' if methods else 'without -i it'} is direct routing: {DIRECT_ROUTING}"
            self._remarks.add(
                call.place, call.subject, f"{NAT if methods == ['m'] else direct}; it is left out"
            )
            return
        tunnel = self._tunnel(call)
        if found is None or tunnel is None:
            service.is_refused = True
            return
        address, port = found
        at, is_edit = (address, 0), call.command == "e"  # a tunnelled server uses the service's port
        if (at in service.servers) != is_edit:
            reason = "the server does not exist" if is_edit else "the server already exists"
            self._remarks.add(call.place, call.subject, reason)
            return
        if port not in {0, service.port}:
            self._remarks.add(
                call.place,
                call.subject,
                f"a tunnelled server uses the service's port, with ipvsadm too; if {port} is meant, "
                f"write port = {port}",
            )
        limits = self._limits(call, weight, upper, lower)
        service.servers[at] = RealServer(call.place, call.subject, address, *limits, tunnel)

    def _limits(self, call: Call, weight: int, upper: int, lower: int) -> tuple[int, int, int]:
        """Return the three limits, reduced to the maximum here, with a remark on each that is reduced."""
        if weight > MOST_WEIGHT:
            self._remarks.add(call.place, f"-w {weight}", f"becomes {MOST_WEIGHT}, the maximum")
        for letter, number in (("x", upper), ("y", lower)):
            if number > MOST_FLOWS:
                self._remarks.add(call.place, f"-{letter} {number}", f"becomes {MOST_FLOWS}, the maximum")
        if lower > upper:
            self._remarks.add(call.place, f"-y {lower}", "is above -x, where it has no effect")
            lower = 0
        return min(weight, MOST_WEIGHT), min(upper, MOST_FLOWS), min(lower, MOST_FLOWS)

    def _tunnel(self, call: Call) -> PlannedTunnel | None:
        kind = call.options.get("tun-type", IPIP)
        if kind in {IPIP, GRE}:
            return PlannedTunnel(kind, kind == GRE and "tun-csum" in call.options)
        if kind != "gue":
            raise UnreadableError(call.place, f"{kind} is not a type of tunnel; write --tun-type ipip")
        self._remarks.add(
            call.place, call.subject, "GUE is not supported; make it a tunnel by ipip or gre; it is left out"
        )
        return None

    def _delete_server(self, call: Call) -> None:
        key, _ = self._key(call)
        service = self._services.get(key)
        if "r" not in call.options:
            raise UnreadableError(call.place, "names no server; write -r ADDRESS")
        if service is None:
            if key not in self._left_out:
                self._remarks.add(call.place, call.subject, "the service does not exist")
            return
        found = self._address(call, call.options["r"], service.protocol)
        if found is not None and service.servers.pop((found[0], 0), None) is None and not service.is_refused:
            self._remarks.add(call.place, call.subject, "the server does not exist")

    def _set(self, call: Call) -> None:
        for name, text in zip(("idle_tcp", "idle_fin", "idle_udp"), call.arguments, strict=True):
            if int(text):  # 0 keeps the present value
                self._idle[name] = min(int(text), MOST_PERSISTENCE)

    def _key(self, call: Call) -> tuple[Key, Address | None]:
        """Return the service that *call* concerns, and its address; None, with a remark, if it is not known."""
        written = [letter for letter in ("t", "u", "sctp", "f") if letter in call.options]
        if len(written) != 1:
            raise UnreadableError(
                call.place, "does not name one service; write one of -t, -u, --sctp-service and -f"
            )
        letter = written[0]
        if letter == "f":
            mark = call.number("f", 1, 2**32 - 1)
            return ("mark", str(mark), 6 if "6" in call.options else 4), None
        found = self._address(call, call.options[letter], PROTOCOLS[letter])
        if found is None:
            return (PROTOCOLS[letter], call.options[letter], 0), None
        address, port = found
        return (PROTOCOLS[letter], str(address), port), address

    def _address(self, call: Call, text: str, protocol: str) -> tuple[Address, int] | None:
        """Return the address and port in *text*; None, with a remark, for a name that must be looked up in DNS."""
        host, port_text = _split(text)
        port = 0
        if port_text is not None:
            known = int(port_text) if NUMBER.fullmatch(port_text) else self._port_of(port_text, protocol)
            if known is None or known > 65535:
                raise UnreadableError(call.place, f"{text} has an unknown port; write it as a number")
            port = known
        try:
            return parse_host_address(host), port
        except ValueError as error:
            if not re.fullmatch(r"(?=.*[A-Za-z])[A-Za-z0-9._-]+", host):
                raise UnreadableError(call.place, f"{host or text} {error}") from None
        self._remarks.add(
            call.place, text, "names are not looked up; write the address (ipvsadm -Sn prints it)"
        )
        return None


def _split(text: str) -> tuple[str, str | None]:
    """Return the host and the port in *text*; None if it has no port."""
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        return host, rest.removeprefix(":") if rest else None
    if text.count(":") > 1:  # ipvsadm wants brackets only if a port follows
        return text, None
    host, colon, port = text.partition(":")
    return host, port if colon else None
