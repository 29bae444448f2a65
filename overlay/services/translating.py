"""Packet filter rules of a server's host: they lead clients' packets to the server, and answers back.

They are chains of one table of the family inet, as nft reads them:

- ``apart``: what comes out of the tunnel for a server is a separate connection.  A client behind the same host, or
  anywhere if the host is also a director, has sent the same packet into the tun, and connection tracking already
  knows it from there.
- ``translate``, ``translate_own``: to the server's address and port.  If the host itself has the virtual address, the
  host and what is behind it connect to that directly, and this translates the port for them, too.
- ``unmark``: the DSCP by which the director distinguishes servers of one host is cleared.
- ``answer``, ``answer_own``: answers that go back through the director are marked for a routing rule: when the kernel
  chooses their route, they are not translated back yet.
- ``hairpin``: a container with a client behind the same host would answer it directly, without the translation back;
  one that connects to itself would be confused.
- ``clamp``: the segment size announced to clients fits an unencrypted tunnel; answers have the service's
  address by then.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from overlay.linux import DESTINATION_NAT, SOURCE_NAT
from peers.service import DIRECTOR, EVERY_PORT

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from peers.addresses import Address
    from peers.peer import Peer
    from peers.service import Ports, Server, Service

Ranges: TypeAlias = "tuple[Ports, ...]"

# Specification
# nftables: hooks and their usual priorities, in include/uapi/linux/netfilter_ipv4.h
RAW, MANGLE = -300, -150
FAMILIES = {4: "ip", 6: "ip6"}  # nft's names of IP versions

# Ours
BEHIND_NAT, BEHIND_SOURCE_NAT = DESTINATION_NAT + 10, SOURCE_NAT + 10
ZONE = 151  # of connection tracking, for what clients send; answers are in the default zone


@dataclass(slots=True)
class Translating:
    """Rules for servers at *own*, whose tun is *interface* and which has the addresses *held* itself.

    *mark* is given to answers that go back through the director.
    """

    interface: str
    own: Peer
    held: Collection[Address]
    mark: int
    _translations: dict[str, None] = field(default_factory=dict)
    _local: dict[str, None] = field(default_factory=dict)
    _marked: dict[Address, None] = field(default_factory=dict)
    _unmarked: set[int] = field(default_factory=set)  # IP versions with translation by DSCP
    _answers: dict[Address, None] = field(default_factory=dict)
    _hairpins: dict[str, None] = field(default_factory=dict)
    _passing: dict[str, None] = field(default_factory=dict)
    _limits: dict[Address, int] = field(default_factory=dict)

    def serve(self, service: Service, address: Address, entries: Iterable[Server]) -> None:
        """Direct packets for *address* of *service* to *entries*, which are at this host."""
        at_host = [entry for entry in entries if entry.address is None]
        if address in self.held and at_host and all(entry.port is not None for entry in at_host):
            self._local.update(dict.fromkeys(self._map(service, at_host[0], address, address, "")))
        for entry in entries:
            if service.dscp_of(entry) and address in self.held:
                self._marked[address] = None
            target = self._target(entry, address)
            if target is None or (target == address and entry.port is None):
                continue
            if service.dscp_of(entry):
                self._unmarked.add(address.version)
            self._translations.update(dict.fromkeys(self._translate(service, entry, address, target)))
            if target == address:
                continue
            if address not in self.held:
                self._passing.update(dict.fromkeys(self._set_apart(service, entry, address)))
            if service.reply == DIRECTOR:
                self._answers[address] = None
            if entry.address is not None:
                self._hairpins.update(dict.fromkeys(self._masquerade(address, target)))

    @property
    def passes_addresses(self) -> bool:
        """Whether a translated address also leads into the tun."""
        return bool(self._passing)

    def limit(self, address: Address, size: int) -> None:
        """Limit segments to *address* to *size* bytes."""
        self._limits[address] = size

    def chains(self) -> str:
        """Return the chains; empty if no rule is needed."""
        other = f'iifname != "{self.interface}" '
        answering = [_is_answer(address, self.mark) for address in self._answers]
        return "".join(
            (
                _chain("apart", f"type filter hook prerouting priority {RAW};", self._passing),
                _chain(
                    "translate",
                    f"type nat hook prerouting priority {DESTINATION_NAT};",
                    [*self._translations, *(other + rule for rule in self._local)],
                ),
                _chain("translate_own", f"type nat hook output priority {DESTINATION_NAT};", self._local),
                _chain("unmark", f"type filter hook prerouting priority {BEHIND_NAT};", self._unmark()),
                _chain(
                    "answer",
                    f"type filter hook prerouting priority {BEHIND_NAT};",
                    [other + rule for rule in answering],
                ),
                _chain("answer_own", f"type route hook output priority {MANGLE};", answering),
                _chain("hairpin", f"type nat hook postrouting priority {SOURCE_NAT};", self._hairpins),
                _chain("clamp", f"type filter hook postrouting priority {BEHIND_SOURCE_NAT};", self._clamp()),
            )
        )

    def _target(self, entry: Server, address: Address) -> Address | None:
        """Return the address of the host or container of *entry*; None if it has none of the family."""
        if entry.address is not None:
            return entry.address if entry.address.version == address.version else None
        if address in self.held:
            return address
        return next((each for each in self.own.addresses if each.version == address.version), None)

    def _translate(self, service: Service, entry: Server, address: Address, target: Address) -> Iterator[str]:
        ip = FAMILIES[address.version]
        dscp = service.dscp_of(entry)
        came = f'iifname "{self.interface}" '
        with_mark = f" {ip} dscp {dscp}" if dscp else ""
        yield from (came + rule for rule in self._map(service, entry, address, target, with_mark))
        where = f"{came}{ip} daddr {address}{with_mark}"
        for protocol, checked in service.checked_ports().items():
            for port in checked:
                yield f"{where} {protocol} dport {port} dnat {ip} to {_host(target)}"
        if target != address:
            echo = "icmp type echo-request" if address.version == 4 else "icmpv6 type echo-request"
            yield f"{where} {echo} dnat {ip} to {_host(target)}"

    @staticmethod
    def _map(
        service: Service, entry: Server, address: Address, target: Address, with_mark: str
    ) -> Iterator[str]:
        ip = FAMILIES[address.version]
        to = f"{_host(target)}:{entry.port}" if entry.port is not None else f"{target}"
        for protocol in service.protocols:
            ports = nft_ports(service.ports or (EVERY_PORT,))
            yield f"{ip} daddr {address}{with_mark} {protocol} dport {ports} dnat {ip} to {to}"

    def _masquerade(self, address: Address, target: Address) -> Iterator[str]:
        ip = FAMILIES[address.version]
        inside = [each for each in self.own.subnets if each.version == address.version]
        if inside:
            yield (
                f"ct status dnat ct original {ip} daddr {address} {ip} daddr {target} {ip} saddr {_set(inside)} "
                "masquerade"
            )

    def _set_apart(self, service: Service, entry: Server, address: Address) -> Iterator[str]:
        """Yield rules for all packets to *entry*, including ICMP errors about its answers."""
        ip = FAMILIES[address.version]
        where, zone = f'iifname "{self.interface}" {ip} daddr {address}', f"ct original zone set {ZONE}"
        dscp = service.dscp_of(entry)
        if dscp:
            yield f"{where} {ip} dscp {dscp} {zone}"
            return
        for protocol in service.protocols:
            yield f"{where} {protocol} dport {nft_ports(service.ports or (EVERY_PORT,))} {zone}"
        for protocol, checked in service.checked_ports().items():
            yield from (f"{where} {protocol} dport {port} {zone}" for port in checked)
        yield f"{where} meta l4proto {'icmp' if address.version == 4 else 'icmpv6'} {zone}"

    def _unmark(self) -> Iterator[str]:
        for version, ip in FAMILIES.items():
            came, clear = f'iifname "{self.interface}" {ip} dscp != cs0', f"{ip} dscp set cs0"
            if version in self._unmarked:
                yield f"{came} ct status dnat {clear}"
            marked = [each for each in self._marked if each.version == version]
            if marked:
                yield f"{came} {ip} daddr {_set(marked)} {clear}"

    def _clamp(self) -> Iterator[str]:
        for address, size in self._limits.items():
            yield (
                f"{FAMILIES[address.version]} saddr {address} tcp flags syn / syn,rst "
                f"tcp option maxseg size > {size} tcp option maxseg size set {size}"
            )


def _is_answer(address: Address, mark: int) -> str:
    ip = FAMILIES[address.version]
    return f"ct direction reply ct status dnat ct original {ip} daddr {address} meta mark set {mark}"


def _host(address: Address) -> str:
    return f"{address}" if address.version == 4 else f"[{address}]"


def nft_ports(ranges: Ranges) -> str:
    """Return port ranges as nft reads them."""
    listed = [f"{first}" if first == last else f"{first}-{last}" for first, last in ranges]
    return listed[0] if len(listed) == 1 else "{ " + ", ".join(listed) + " }"


def _set(values: Iterable[object]) -> str:
    return "{ " + ", ".join(map(str, values)) + " }"


def _chain(name: str, head: str, rules: Iterable[str]) -> str:
    """Return a chain; empty for one without rules."""
    lines = "".join(f"\t\t{rule}\n" for rule in rules)
    return f"\tchain {name} {{\n\t\t{head} policy accept;\n{lines}\t}}\n" if lines else ""
