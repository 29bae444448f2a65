"""[vrrp.NAME], and the VRRP that is written at a service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peers.errors import KeyProblem
from peers.key import read_keys
from peers.peer import PEER_NAME
from peers.service import Vrrp
from peers.services.keys import VRRP
from peers.services.names import named_section, names_of
from peers.services.values import interface_name
from peers.toml_section import describe

if TYPE_CHECKING:
    from pathlib import Path

    from peers.peer import Network
    from peers.toml_section import Section


def read_vrrp(groups: Section, name: str, _network: Network, _directory: Path | None) -> Vrrp:
    """Return the group *name* among *groups*.  Raises KeyProblem."""
    return vrrp_in(named_section(groups, name, "group"), name)


def vrrp_in(section: Section, name: str) -> Vrrp:
    """Return the group that *section* writes, which is called *name*.  Raises KeyProblem."""
    section.refuse_unknown(names_of(VRRP))
    values = read_keys(section, VRRP)
    if "router" not in values:
        raise KeyProblem(
            (*section.keys, "router"),
            "is missing; write the virtual router identifier, 1 to 255, that the LAN has free",
        )
    values["interface"], values["interfaces"] = _by_director(section, "interface", _interface)
    values["priority"], values["priorities"] = _by_director(section, "priority", _priority)
    if values["interface"] is None and not values["interfaces"]:
        raise KeyProblem((*section.keys, "interface"), 'is missing; write the one on the LAN, such as "eth0"')
    version, interval = values.get("version", 3), values.get("interval", 1.0)
    if version == 3 and interval > 40.95:
        raise KeyProblem((*section.keys, "interval"), f"is {interval:g}; version 3 has up to 40.95 seconds")
    if version == 2 and interval != int(interval):
        raise KeyProblem(
            (*section.keys, "interval"),
            f"is {interval:g}; version 2 has whole seconds, so write those or version = 3",
        )
    if version == 3 and "password" in values:
        raise KeyProblem((*section.keys, "password"), "is for version 2, and version 3 has none; remove it")
    return Vrrp(name, **values)


def _by_director(section: Section, key: str, read: Any) -> tuple[Any, dict[str, Any]]:
    """Return the value of *key* for all directors, and those for single ones where it is a table by their names."""
    if not isinstance(section.values.get(key), dict):
        return read(section, key), {}
    table = section.section(key, "")
    for name in table.values:
        if not PEER_NAME.fullmatch(name):
            raise KeyProblem((*table.keys, name), "is not the name of a peer; write that of a director")
    return None, {name: read(table, name) for name in table.values}


def _interface(section: Section, key: str) -> str | None:
    found = section.string(key, "the name of an interface")
    try:
        return None if found is None else interface_name(found)
    except ValueError as error:
        raise KeyProblem((*section.keys, key), f"{describe(found)} {error}") from None


def _priority(section: Section, key: str) -> int | None:
    return section.integer(key, 1, 255, "a priority")
