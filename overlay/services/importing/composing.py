"""A plan as sections of a peers file that its reader accepts.

Anything that the reader would refuse is left out with the reason, so that the result can be used as it is.
"""

from __future__ import annotations

import tomllib
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

from overlay.importing.toml_text import format_comment, format_table
from overlay.services.importing.owners import AmbiguousError, KnownPeers, Newcomers, free_prefix
from peers import toml
from peers.encapsulation import IPIP
from peers.errors import KeyProblem, format_keys
from peers.kinds import KINDS
from peers.peer import LABEL
from peers.peer_section import PEERS
from peers.services.sections import CHECKS, SERVICES
from peers.toml_section import Section

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from overlay.importing.places import Remarks
    from overlay.importing.toml_text import Value
    from overlay.services.importing.owners import NewPeer, Owner
    from overlay.services.importing.plan import Keys, Plan, RealServer, VirtualService, VrrpGroup
    from peers.addresses import Address, Prefix
    from peers.table import Table

    Host: TypeAlias = tuple[str, Address | None]
    """A peer, and the address of a container behind it; None for the peer itself."""

# Ours
PRIORITY_STEP = 10  # between one director and the next
ALONE = """\
Directors and servers are unencrypted peers here, and the addresses of the overlay were made up.  The imported file
does not say where a director can be reached (endpoint), or which hosts run an agent of their own (public_key).
"""
NO_DIRECTORS = """\
No directors are named, so every host balances the connections that start there.  To have some hosts balance for all,
write directors = ["NAME"].
"""
DIRECTOR = "director"  # the host of the imported file, if nothing else is known about it


@dataclass(frozen=True, slots=True)
class ExistingFile:
    """A peers file to which the output is appended: its *text*, and the *table* in it."""

    path: Path
    text: str
    table: Table


class CannotFollowError(Exception):
    """The text of a peers file is written in such a way that no sections can follow it."""


def compose(
    plan: Plan,
    remarks: Remarks,
    title: str,
    directors: tuple[str, ...] = (),
    known: ExistingFile | None = None,
) -> str:
    """Return the sections for *plan*; empty if no service is left.

    With *known*, which has the peers *directors*, they are made to follow its text.  Otherwise they are a whole file,
    in which the host of the imported file is a separate peer if no directors are named.  Raises CannotFollowError.
    """
    if known is None and not directors:
        directors = (DIRECTOR,)
    composer = _Composer(plan, remarks, title, directors, known)
    while problems := composer.write():
        for problem in problems:
            composer.leave_out(problem)
    return composer.text


class _Composer:
    def __init__(
        self, plan: Plan, remarks: Remarks, title: str, directors: tuple[str, ...], known: ExistingFile | None
    ) -> None:
        self.text = ""
        self._remarks, self._title, self._directors, self._known = remarks, title, directors, known
        self._table = None if known is None else known.table
        self._owners = KnownPeers(self._table)
        self._refusal = ""  # why new peers cannot be added
        self._written: dict[str, list[RealServer]] = {}
        self._services = _renamed(plan.services, () if self._table is None else tuple(self._table.services))
        self._vrrps = list(plan.vrrps)
        self._used = [each for service in plan.services for each in _addresses_of(service)]

    def write(self) -> list[KeyProblem]:
        """Write the sections; return some or all of the problems that the reader of peers files has with them."""
        newcomers = Newcomers(self._prefixes(), self._table)
        own = (
            [] if self._known is not None else [(name, newcomers.next_address()) for name in self._directors]
        )
        services = [
            (service, servers, sorry)
            for service in self._services
            for servers, sorry in self._resolved(service, newcomers)
        ]
        groups = self._groups([service for service, _, _ in services])
        names = self._names_of_checks([servers for _, servers, _ in services])
        parts = [format_comment(self._title.rstrip("\n"))]
        if self._known is None:
            parts[0] += format_comment(ALONE.rstrip("\n"))
            prefixes = ", ".join(map(str, self._prefixes()))
            parts.append(format_table(("network",), [("prefix", prefixes), ("encapsulation", IPIP)]))
        elif not self._directors:
            parts[0] += format_comment(NO_DIRECTORS.rstrip("\n"))
        parts += [self._director(name, address, groups) for name, address in own]
        parts += [
            format_table(("peers", peer.name), self._peer_keys(peer)) for peer in newcomers.peers.values()
        ]
        parts += [format_table(("checks", name), keys) for keys, name in names.items()]
        parts += [format_table(("vrrp", group.name), self._vrrp_keys(group)) for group in groups]
        parts += [
            format_table(("services", service.name), self._keys(service, servers, sorry, names, groups))
            for service, servers, sorry in services
        ]
        self._written = {service.name: list(servers.values()) for service, servers, _ in services}
        self.text = "\n".join(parts) if services else ""
        return self._problems() if services else []

    def leave_out(self, problem: KeyProblem) -> None:
        """Leave out what *problem* concerns, and add a remark."""
        table, name = problem.keys[0], problem.keys[1] if len(problem.keys) > 1 else ""
        for service in self._services:
            if table == "services" and service.name == name:
                self._leave_out_of(service, problem)
                return
        for group in self._vrrps:
            if table == "vrrp" and group.name == name:
                self._remarks.add(group.place, group.subject, f"{problem}; it is left out")
                self._vrrps.remove(group)
                return
        assert not self._refusal, f"the reader refuses what was imported: {problem}"
        self._refusal = str(problem)

    def _leave_out_of(self, service: VirtualService, problem: KeyProblem) -> None:
        """Leave out the one server of *service* that *problem* concerns, or otherwise the service."""
        index = self._services.index(service)
        servers = self._written[service.name]
        match problem.keys[2:]:
            case ("sorry", *_) if service.sorry is not None:
                server: RealServer | None = service.sorry
            case ("servers", int(number), *_) if number < len(servers):
                server = servers[number]
            case ("servers", *_) if len(servers) == 1:
                server = servers[0]
            case _:
                server = None
        what = service if server is None else server
        key = format_keys(problem.keys[2:])
        self._remarks.add(what.place, what.subject, f"{key} {problem.finding}; it is left out".lstrip())
        if server is None:
            del self._services[index]
        else:
            self._services[index] = service.without(server)

    def _problems(self) -> list[KeyProblem]:
        before = "" if self._known is None else self._known.text.removeprefix("\ufeff")
        directory = None if self._known is None else self._known.path.parent
        try:
            document = Section((), tomllib.loads(f"{before}\n{self.text}"))
        except tomllib.TOMLDecodeError as error:
            raise CannotFollowError from error
        try:
            toml.read_document(document, directory)
        except KeyProblem as problem:
            return [problem, *self._further_problems(document, directory, problem)]
        return []

    def _further_problems(
        self, document: Section, directory: Path | None, problem: KeyProblem
    ) -> Iterator[KeyProblem]:
        """Yield further problems of services besides *problem*, without reading everything again for each."""
        try:
            network = toml.read_network(document.section("network", ""))
            sections = {kind: kind.read_all(document, network, directory) for kind in KINDS}
        except KeyProblem:
            return
        peers, own = sections.pop(PEERS), {service.name for service in self._services}
        while problem.keys[0] == "services" and problem.keys[1:2] and problem.keys[1] in own:
            del sections[SERVICES][str(problem.keys[1])]
            try:
                SERVICES.check(network, peers, sections)
            except KeyProblem as further:
                problem = further
                yield problem
            else:
                return

    def _prefixes(self) -> tuple[Prefix, ...]:
        return (free_prefix(self._used),) if self._table is None else self._table.network.prefixes

    def _resolved(
        self, service: VirtualService, newcomers: Newcomers
    ) -> Iterator[tuple[dict[Host, RealServer], tuple[Host, RealServer] | None]]:
        """Yield the servers of *service* by their owners, and the sorry server; nothing if none is left."""
        servers: dict[Host, RealServer] = {}
        for server in service.servers:
            owner = self._owner(server, newcomers)
            if owner is None:
                continue
            if owner in servers:
                self._remarks.add(
                    server.place,
                    server.subject,
                    f"is the same peer as the server of line {servers[owner].place.line}",
                )
            else:
                servers[owner] = server
        if service.servers and not servers:
            self._remarks.add(
                service.place,
                service.subject,
                "is left out, because none of its servers could be carried over",
            )
            return
        found = None if service.sorry is None else self._owner(service.sorry, newcomers)
        yield servers, None if found is None or service.sorry is None else (found, service.sorry)

    def _owner(self, server: RealServer, newcomers: Newcomers) -> Host | None:
        try:
            owner: Owner | None = self._owners.find(server.address)
        except AmbiguousError as error:
            self._remarks.add(server.place, server.subject, f"{error}; it is left out")
            return None
        if owner is not None:
            return owner.peer, owner.address
        if self._refusal:
            self._remarks.add(
                server.place,
                server.subject,
                f"is not a peer of the file, and cannot become an unencrypted one ({self._refusal}); it is left out",
            )
            return None
        return newcomers.add(server).name, None

    def _peer_keys(self, peer: NewPeer) -> Iterator[tuple[str, Value]]:
        yield "endpoint", peer.endpoint
        yield "address", str(peer.address)
        if self._known is not None or peer.tunnel.encapsulation != IPIP:
            yield "encapsulation", peer.tunnel.encapsulation
        if peer.tunnel.has_checksums:
            yield "gre_checksum", True

    def _director(self, name: str, address: Address, groups: list[VrrpGroup]) -> str:
        """Return the section of a director; of it, only the address on the LAN may be known."""
        routers = next((group.routers for group in groups if len(group.routers) == len(self._directors)), ())
        index = self._directors.index(name)
        is_name = LABEL.fullmatch(name) and not name.isdigit()
        endpoint = str(routers[index]) if routers else name if is_name else f"director-{index + 1}.invalid"
        return format_table(
            ("peers", name), [("endpoint", endpoint), ("address", str(address)), ("agent", True)]
        )

    def _groups(self, services: list[VirtualService]) -> list[VrrpGroup]:
        """Return the VRRP groups that serve one of *services*, with a remark on each of the others."""
        held = {address for service in services for address in service.addresses}
        found = []
        for group in self._vrrps:
            if not any(address in held for _, _, address in group.addresses):
                reason = "has no address of a service that is carried over"
                self._remarks.add(group.place, group.subject, reason)
            elif not self._directors:
                reason = "the directors of a service speak VRRP; name them with --director"
                self._remarks.add(group.place, group.subject, reason)
            else:
                found.append(group)
                for place, subject, address in group.addresses:
                    if address not in held:
                        self._remarks.add(
                            place, subject, "is not an address of a service that is carried over"
                        )
        return found

    def _vrrp_keys(self, group: VrrpGroup) -> Keys:
        priorities: dict[str, Value] = {
            name: max(1, group.priority - PRIORITY_STEP * index) for index, name in enumerate(self._directors)
        }
        return (*group.keys, ("priority", priorities))

    def _names_of_checks(self, services: list[dict[Host, RealServer]]) -> dict[Keys, str]:
        """Return names for the checks that are used more than once."""
        counts: Counter[Keys] = Counter()
        for servers in services:
            shared = _shared(servers)
            for checks in [shared] if shared else [server.checks for server in servers.values()]:
                counts.update(checks)
        taken = set() if self._table is None else set(CHECKS.of(self._table.sections))
        names: dict[Keys, str] = {}
        for keys, number in counts.items():
            if number > 1:
                kind, index = str(dict(keys)["kind"]), 1
                name = kind
                while name in taken:
                    index += 1
                    name = f"{kind}-{index}"
                taken.add(name)
                names[keys] = name
        return names

    def _keys(
        self,
        service: VirtualService,
        servers: dict[Host, RealServer],
        sorry: tuple[Host, RealServer] | None,
        names: dict[Keys, str],
        groups: list[VrrpGroup],
    ) -> Iterator[tuple[str, Value]]:
        addresses = tuple(map(str, service.addresses))
        yield "address", addresses if len(addresses) > 1 else addresses[0]
        if service.ports:
            yield "ports", service.ports if len(service.ports) > 1 else service.ports[0]
        if service.protocol != "tcp":
            yield "protocol", service.protocol
        if self._directors:
            yield "directors", self._directors
        yield from service.keys
        shared = _shared(servers)
        if shared:
            yield "check", _checks(shared, names)
        if servers:
            yield (
                "servers",
                tuple(
                    _server(owner, each, () if shared else each.checks, names)
                    for owner, each in servers.items()
                ),
            )
        if sorry is not None:
            yield "sorry", _server(*sorry, (), names)
        for group in groups:
            if any(address in service.addresses for _, _, address in group.addresses):
                yield "vrrp", group.name
                break


def _renamed(services: tuple[VirtualService, ...], taken: tuple[str, ...]) -> list[VirtualService]:
    """Return *services* with names that are not *taken*."""
    names, found = set(taken), []
    for service in services:
        name = service.name
        while name in names:
            name += "-imported"
        names.add(name)
        found.append(replace(service, name=name))
    return found


def _addresses_of(service: VirtualService) -> list[Address]:
    sorry = [] if service.sorry is None else [service.sorry.address]
    return [*service.addresses, *(server.address for server in service.servers), *sorry]


def _shared(servers: dict[Host, RealServer]) -> tuple[Keys, ...]:
    """Return the checks that all *servers* have in common; empty if they differ."""
    found = {server.checks for server in servers.values()}
    return found.pop() if len(found) == 1 else ()


def _checks(checks: tuple[Keys, ...], names: dict[Keys, str]) -> Value:
    written = tuple(names[keys] if keys in names else dict(keys) for keys in checks)
    return written[0] if len(written) == 1 else written


def _server(owner: Host, server: RealServer, checks: tuple[Keys, ...], names: dict[Keys, str]) -> Value:
    peer, address = owner
    keys: dict[str, Value] = {"peer": peer}
    if address is not None:
        keys["address"] = str(address)
    if server.weight != 1:
        keys["weight"] = server.weight
    if server.upper:
        keys["upper_threshold"] = server.upper
    if server.lower:
        keys["lower_threshold"] = server.lower
    if checks:
        keys["check"] = _checks(checks, names)
    return peer if len(keys) == 1 else keys
