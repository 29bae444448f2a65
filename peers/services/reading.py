"""[services.NAME]: TOML in, a draft of a service or one sentence out.

The checks and the group that it names are looked up when the draft is finished, for sections are read one by one; its
peers are compared with the table: see peers.services.conflicts.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from peers.errors import KeyProblem
from peers.key import read_keys
from peers.peer import PEER_NAME
from peers.service import Check, Server, Service, Vrrp
from peers.services.checks import check_in
from peers.services.keys import KINDS, SERVER, SERVICE
from peers.services.names import named_section, names_of
from peers.services.values import MOST_ITEMS
from peers.services.vrrp import vrrp_in
from peers.toml_section import Section, describe, refuse_repeated

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from peers.errors import Keys
    from peers.peer import Network

T = TypeVar("T")

# Ours
MOST_SERVERS = 1000  # of one service: Maglev's table has at least 65 slots for each of them
MOST_CHECKS = 16  # of one server
EVERY_NODE = "all"

_SERVER = 'the name of a peer, or a table such as { peer = "web2", weight = 3 }'
_CHECK = 'a name from [checks], or a table such as { kind = "tcp" }'


@dataclass(frozen=True, slots=True)
class Reference:
    """Something that is written elsewhere in the file, under *name*, and is meant at *keys*."""

    keys: Keys
    name: str


Checks: TypeAlias = tuple[Check | Reference, ...]


@dataclass(frozen=True, slots=True)
class Draft:
    """A service as its section writes it: what it names elsewhere in the file is not looked up yet.

    *server_checks* are by the names of servers; the sorry server's are under None.
    """

    service: Service
    checks: Checks
    server_checks: Mapping[str | None, Checks]
    vrrp: Vrrp | Reference | None

    def finish(self, checks: Mapping[str, Check], vrrps: Mapping[str, Vrrp]) -> Service:
        """Return the service with what it names.  Raises KeyProblem for what is in neither *checks* nor *vrrps*."""

        def found(written: Checks) -> tuple[Check, ...]:
            return tuple(_look_up(each, checks, "checks") for each in written)

        own = {name: found(each) for name, each in self.server_checks.items()}
        sorry = self.service.sorry
        return replace(
            self.service,
            checks=found(self.checks),
            servers=tuple(
                replace(server, checks=own[server.name]) if server.name in own else server
                for server in self.service.servers
            ),
            sorry=replace(sorry, checks=own[None]) if sorry is not None and None in own else sorry,
            vrrp=None if self.vrrp is None else _look_up(self.vrrp, vrrps, "vrrp"),
        )


def _look_up(each: T | Reference, known: Mapping[str, T], table: str) -> T:
    if not isinstance(each, Reference):
        return each
    if each.name not in known:
        there = (
            f"there are {', '.join(list(known)[:10])}" if known else f"write a [{table}.{each.name}] table"
        )
        if table == "checks" and each.name in KINDS:
            there = f'write check = {{ kind = "{each.name}" }}, or ' + there.removeprefix("write ")
        raise KeyProblem(each.keys, f"is {describe(each.name)}, which is not in [{table}]; {there}")
    return known[each.name]


def read_service(services: Section, name: str, _network: Network, directory: Path | None) -> Draft:
    """Return the service *name* among *services*; files that it names are below *directory*.  Raises KeyProblem."""
    section = named_section(services, name, "service")
    section.refuse_unknown(names_of(SERVICE))
    values = read_keys(section, SERVICE)
    if not values.get("addresses"):
        found = "is empty" if "addresses" in values else "is missing"
        raise KeyProblem(
            (*section.keys, "address"), f'{found}; write a virtual address, such as address = "192.0.2.100"'
        )
    values["directors"] = _directors(section)
    values["persistence_prefix"] = _persistence_prefix(section, values)
    server_checks: dict[str | None, Checks] = {}
    values["servers"] = _servers(section, directory, server_checks)
    values["sorry"] = _sorry(section, directory, server_checks)
    checks = _checks(section, directory) or ()
    return Draft(Service(name, **values), checks, server_checks, _vrrp(section))


def _servers(
    section: Section, directory: Path | None, checks: dict[str | None, Checks]
) -> tuple[Server, ...]:
    """Return the servers, and put the checks of those that have their own into *checks*."""
    items = section.items("servers") or []
    if len(items) > MOST_SERVERS:
        raise KeyProblem(
            (*section.keys, "servers"),
            f"has {len(items)} entries; write at most {MOST_SERVERS}, or more services",
        )
    read = [_server(place, item, directory) for place, item in items]
    at_peer = Counter(values["peer"] for values, _ in read)
    servers: list[Server] = []
    seen: dict[str, str] = {}
    names: set[str] = set()
    for (place, _), (values, own) in zip(items, read, strict=True):
        values.setdefault("name", _server_name(values, is_single=at_peer[values["peer"]] == 1))
        server = Server(**values)
        if server.key in seen:
            raise KeyProblem(
                place, f"is also the server {seen[server.key]}; give it another address or port, or remove it"
            )
        if server.name in names:
            raise KeyProblem(place, f"has the name of another server, {server.name}; give it another")
        seen[server.key] = server.name
        names.add(server.name)
        servers.append(server)
        if own is not None:
            checks[server.name] = own
    return tuple(servers)


def _sorry(section: Section, directory: Path | None, checks: dict[str | None, Checks]) -> Server | None:
    value = section.values.get("sorry")
    if value is None:
        return None
    values, own = _server((*section.keys, "sorry"), value, directory)
    values.setdefault("name", _server_name(values, is_single=True))
    if own is not None:
        checks[None] = own
    return Server(**values)


def _server(place: Keys, item: object, directory: Path | None) -> tuple[dict[str, Any], Checks | None]:
    """Return the fields of one entry, its name only where it is written, and its own checks."""
    if isinstance(item, str):
        return {"peer": _name_of_peer(place, item)}, None
    if not isinstance(item, dict):
        raise KeyProblem(place, f"is {describe(item)}; write {_SERVER}")
    section = Section(place, item)
    section.refuse_unknown(names_of(SERVER))
    values = read_keys(section, SERVER)
    peer = section.string("peer", "the name of a peer")
    if peer is None:
        raise KeyProblem(place, f"names no peer; write {_SERVER}")
    values["peer"] = _name_of_peer((*place, "peer"), peer)
    name = section.string("name", "a name")
    if name is not None:
        if not PEER_NAME.fullmatch(name):
            raise KeyProblem(
                (*place, "name"),
                f"is {describe(name)}; write 1 to 63 letters, digits, dots, hyphens or underscores",
            )
        values["name"] = name
    if values.get("lower", 0) > values.get("upper", 0):
        raise KeyProblem(
            (*place, "lower_threshold"), "is above upper_threshold; write a smaller number of flows"
        )
    return values, _checks(section, directory)


def _checks(section: Section, directory: Path | None) -> Checks | None:
    items = section.items("check")
    if items is None:
        return None
    keys = (*section.keys, "check")
    if len(items) > MOST_CHECKS:
        raise KeyProblem(keys, f"has {len(items)} checks; write at most {MOST_CHECKS}")
    checks = tuple(_check(place, item, directory) for place, item in items)
    named = [each.name if isinstance(each, Reference) else index for index, each in enumerate(checks)]
    refuse_repeated(keys, tuple(named))
    return checks


def _check(place: Keys, item: object, directory: Path | None) -> Check | Reference:
    if isinstance(item, str):
        return Reference(place, item)
    if not isinstance(item, dict):
        raise KeyProblem(place, f"is {describe(item)}; write {_CHECK}")
    return check_in(Section(place, item), directory)


def _vrrp(section: Section) -> Vrrp | Reference | None:
    value = section.values.get("vrrp")
    if value is None:
        return None
    if isinstance(value, str):
        return Reference((*section.keys, "vrrp"), value)
    table = section.section(
        "vrrp", "write a name from [vrrp] in quotes, or a table with router and interface"
    )
    return vrrp_in(table, f"services/{section.keys[-1]}")


def _directors(section: Section) -> tuple[str, ...] | None:
    """Return the directors; None for every node, which is also the default."""
    keys = (*section.keys, "directors")
    value = section.values.get("directors")
    if value is None or value == EVERY_NODE:
        return None
    found = section.each("directors", str, 'names of peers, or "all",')
    assert found is not None
    if not found:
        raise KeyProblem(keys, 'is empty; write the names of peers, or "all" for every node')
    if len(found) > MOST_ITEMS:
        raise KeyProblem(keys, f'has {len(found)} names; write at most {MOST_ITEMS}, or "all"')
    refuse_repeated(keys, found)
    return found


def _persistence_prefix(section: Section, values: dict[str, Any]) -> dict[int, int]:
    """Return the lengths by IP version.  Raises KeyProblem for one that has no effect."""
    versions = {address.version for address in values["addresses"]}
    prefixes = {4: 32, 6: 128}
    for version, key, other in (
        (4, "persistence_prefix", "persistence_prefix_v6"),
        (6, "persistence_prefix_v6", "persistence_prefix"),
    ):
        length = values.pop(key, None)
        if length is None:
            continue
        if version not in versions:
            raise KeyProblem(
                (*section.keys, key),
                f"is for clients with IPv{version}, and the service has no IPv{version} address; write {other}, "
                "or remove it",
            )
        if not values.get("persistence"):
            raise KeyProblem(
                (*section.keys, key),
                "has no effect without persistence; write how many seconds, or remove it",
            )
        prefixes[version] = length
    return prefixes


def _name_of_peer(place: Keys, text: str) -> str:
    if not PEER_NAME.fullmatch(text):
        raise KeyProblem(place, f"is {describe(text)}, which no peer is called; write {_SERVER}")
    return text


def _server_name(values: Mapping[str, Any], *, is_single: bool) -> str:
    """Return the name of an entry that has none: its peer's, with what tells it from others there."""
    peer, address, port = values["peer"], values.get("address"), values.get("port")
    if is_single:
        return str(peer)
    if address is None:
        return f"{peer}:{port}" if port else str(peer)
    shown = f"[{address}]" if port and address.version == 6 else str(address)
    return f"{peer}@{shown}:{port}" if port else f"{peer}@{shown}"
