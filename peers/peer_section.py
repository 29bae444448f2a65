"""[peers.NAME]: one host of the overlay, as the peers file writes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peers.encapsulation import has_ports
from peers.errors import KeyProblem
from peers.files import path_below
from peers.key import keys_of, read_keys
from peers.kind import Kind
from peers.peer import KEY_TEXT_SIZE, PEER_NAME, TUN, Endpoint, Peer, default_addresses
from peers.toml_section import describe

if TYPE_CHECKING:
    from pathlib import Path

    from peers.peer import Network
    from peers.toml_section import Section


def read_peer(peers: Section, name: str, network: Network, directory: Path | None) -> Peer:
    """Return the peer *name* among *peers*; relative names are below *directory*, if there is one.
    Raises KeyProblem.
    """
    if not PEER_NAME.fullmatch(name):
        raise KeyProblem(
            (*peers.keys, name),
            "is not a peer name; write 1 to 63 letters, digits, dots, hyphens or underscores",
        )
    section = peers.section(name, f"write a [peers.{name}] table with public_key and subnets")
    section.refuse_unknown(PEERS.names)
    values = read_keys(section, PEERS.keys)
    subnets = values.get("subnets", ())
    if not subnets and not values.get("addresses") and network.device == TUN:
        raise KeyProblem(section.keys, "has neither subnets nor an address; write what lies behind it")
    used = values.get("encapsulation") or network.encapsulation
    listen_port = values.get("listen_port")
    if listen_port is not None and not has_ports(used):
        raise KeyProblem(
            (*section.keys, "listen_port"), f"has no effect, because {used} has no ports; remove it"
        )
    # What depends on more than its own text
    values["addresses"] = values.get("addresses") or default_addresses(subnets, network.prefixes)
    values["endpoint"] = _read_endpoint(section, listen_port or network.port_for(used), used)
    values["preshared_key_file"] = _read_preshared_key_file(section, directory)
    values.setdefault("public_key", None)
    return Peer(name, **values)


def _read_endpoint(section: Section, default_port: int, encapsulation: str) -> Endpoint | None:
    text = section.string("endpoint", "an address or a DNS name")
    if text is None:
        return None
    try:
        endpoint = Endpoint.parse(text, default_port)
    except ValueError as error:
        raise KeyProblem((*section.keys, "endpoint"), f"{describe(text)} {error}") from None
    if endpoint.port and not has_ports(encapsulation):
        raise KeyProblem(
            (*section.keys, "endpoint"),
            f"{describe(text)} has a port, and {encapsulation} has none; write {endpoint.host}",
        )
    return endpoint


def _read_preshared_key_file(section: Section, directory: Path | None) -> Path | None:
    text = section.string("preshared_key_file", "the path of a file")
    if text is None:
        return None
    keys = (*section.keys, "preshared_key_file")
    if len(text) == KEY_TEXT_SIZE and text.endswith("="):  # not repeated in the error: it is a secret
        raise KeyProblem(
            keys, "is a key itself; put it into a file that only root can read and write its path"
        )
    if not text or not text.isprintable():
        raise KeyProblem(keys, f"is {describe(text)}; write the path of a file")
    try:
        return path_below(directory, text)
    except ValueError as error:
        raise KeyProblem(keys, f"is {describe(text)}, {error}") from None


PEERS = Kind("peers", keys_of(Peer), read_peer, demand="write a [peers.NAME] table for each host")
