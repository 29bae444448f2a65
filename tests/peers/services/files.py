"""Peers files with services, for tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from peers.services.keys import CHECK, KINDS, SERVICE, VRRP
from peers.toml import parse
from tests.peers.examples import key_text

if TYPE_CHECKING:
    from peers.service import Check, Server, Service, Vrrp

PATH = Path("/etc/overlay/peers.toml")
PEERS = ("lb1", "lb2", "web1", "web2", "web3", "static")
PLAIN = '[peers.plain]\naddress = "10.244.0.50"\nendpoint = "198.51.100.50"\nencapsulation = "ipip"\n'
HEAD = '[network]\nprefix = "10.244.0.0/16"\n' + "".join(
    f'[peers.{name}]\npublic_key = "{key_text(name)}"\naddress = "10.244.0.{number}"\n'
    f'endpoint = "198.51.100.{number}"\nsubnets = "10.244.{number}.0/24"\n'
    for number, name in enumerate(PEERS, 1)
)
FIRST_LINE = HEAD.count("\n") + 1


def read(*lines: str):
    """Return the table of the peers above and *lines*."""
    return parse(HEAD + "\n".join(lines), PATH)


def web(*lines: str) -> str:
    """Return the section of a service with *lines*, which may omit the address."""
    first = [] if any(line.startswith("address") for line in lines) else ['address = "192.0.2.100"']
    return "\n".join(["[services.web]", *first, *lines, ""])


def toml(value: object) -> str:
    """Return *value* as TOML writes it on one line."""
    match value:
        case bool():
            return str(value).lower()
        case int() | float():
            return repr(value)
        case str():
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case list() | tuple():
            return f"[{', '.join(map(toml, value))}]"
        case dict():
            return f"{{ {', '.join(f'{toml(key)} = {toml(each)}' for key, each in value.items())} }}"
        case _:
            return str(value)


def written(service: Service) -> dict[str, object]:
    """Return the keys and values that write *service*, without defaults."""
    keys = {key.field or key.name: key for key in SERVICE if key.read is not None}
    values = {
        key.name: _plain(getattr(service, field)) for field, key in keys.items() if hasattr(service, field)
    }
    values |= {
        "ports": [f"{first}-{last}" for first, last in service.ports],
        "directors": "all" if service.directors is None else list(service.directors),
        "servers": [_server(server) for server in service.servers],
        "check": [_check(check) for check in service.checks],
    }
    for version, key in ((4, "persistence_prefix"), (6, "persistence_prefix_v6")):
        values.pop(key, None)
        if service.persistence and any(address.version == version for address in service.addresses):
            values[key] = service.persistence_prefix[version]
    if service.sorry is not None:
        values["sorry"] = _server(service.sorry)
    if service.vrrp is not None:
        values["vrrp"] = _group(service.vrrp)
    return {key: value for key, value in values.items() if value not in ((), [])}


def _server(server: Server) -> dict[str, object]:
    values: dict[str, object] = {"peer": server.peer, "name": server.name, "weight": server.weight}
    values |= {"upper_threshold": server.upper, "lower_threshold": server.lower}
    if server.address is not None:
        values["address"] = str(server.address)
    if server.port is not None:
        values["port"] = server.port
    if server.checks is not None:
        values["check"] = [_check(check) for check in server.checks]
    return values


def _check(check: Check) -> dict[str, object]:
    values: dict[str, object] = {"kind": check.kind}
    for key in (*CHECK, *KINDS[check.kind]):
        value = getattr(check, key.field or key.name, None)
        if value is not None and key.name not in {"fall", "send", "expect"}:
            values[key.name] = value.hex() if isinstance(value, bytes) else _plain(value)
    values["status"] = [f"{first}-{last}" for first, last in check.status]
    return {
        key: value for key, value in values.items() if key in _names(check.kind) and value not in ((), "")
    }


def _names(kind: str) -> set[str]:
    return {key.name for key in (*CHECK, *KINDS[kind])}


def _group(group: Vrrp) -> dict[str, object]:
    values = {key.name: _plain(getattr(group, key.name)) for key in VRRP}
    values["interface"] = group.interfaces or group.interface
    values["priority"] = group.priorities or group.priority
    return {key: value for key, value in values.items() if value is not None and value not in ((), "", [])}


def _plain(value: object) -> object:
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return value if isinstance(value, bool | int | float | str | None) else str(value)
