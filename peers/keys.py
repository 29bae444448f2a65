"""The keys of [network] and of each [peers.NAME], one row for each.

A key that is left out leaves its field at the default of Network or Peer.  A new key is a row here and a field there;
what is refused, suggested for a misspelt key and demanded of the documentation follows from the row.
"""

from __future__ import annotations

from typing import Any

from peers.addresses import parse_address, parse_host_address, parse_prefix
from peers.encapsulation import ENCAPSULATIONS, GRE_KEY, PORTS, VNI
from peers.errors import KeyProblem
from peers.key import Key, choice, each, integer
from peers.mac import format_mac, parse_mac
from peers.peer import INHERITED, MOST_STATIONS, TAP, TUN, parse_public_key
from peers.toml_section import Section, refuse_second_of_family


def _subnets(section: Section, key: str) -> tuple[Any, ...] | None:
    return section.each(
        key, parse_prefix, "a prefix such as 10.244.1.0/24"
    )  # the table refuses repeated ones


def _addresses(section: Section, key: str) -> tuple[Any, ...] | None:
    addresses = section.each(key, parse_host_address, "an address such as 10.244.1.1")
    refuse_second_of_family((*section.keys, key), addresses or ())
    return addresses


def _public_key(section: Section, key: str) -> bytes | None:
    text = section.string(key, "the public key")
    try:
        return None if text is None else parse_public_key(text)
    except ValueError as error:
        raise KeyProblem((*section.keys, key), str(error)) from None


def _ttl(section: Section, key: str) -> int | None:
    if section.values.get(key) == "inherit":
        return INHERITED
    return section.integer(key, 1, 255, 'the word "inherit" in quotes, or a number')


_PORT = integer(1, 65535, "a UDP port")
_GRE = (
    Key("gre_key", integer(0, GRE_KEY.largest, "a number")),
    Key("gre_checksum", Section.boolean),
    Key("gre_sequence", Section.boolean),
)
_ENCAPSULATION = Key("encapsulation", choice(*ENCAPSULATIONS))

NETWORK = (
    Key("prefix", each(parse_prefix, "a prefix such as 10.244.0.0/16"), "prefixes"),
    *(Key(port.key, _PORT) for port in PORTS.values()),
    Key("mtu", integer(576, 65535, "bytes")),
    Key("fwmark", integer(1, 2**32 - 1, "a mark")),
    Key("bulk", Section.boolean),
    _ENCAPSULATION,
    Key("vni", integer(0, VNI.largest, "a number")),
    *_GRE,
    Key("ttl", _ttl),
    Key("device", choice(TUN, TAP)),
    Key("point_to_point", Section.boolean),
    Key("stations", integer(1, MOST_STATIONS, "a number of Ethernet addresses")),
)
"""The keys of [network]."""

PEER = (
    Key("public_key", _public_key),
    Key("subnets", _subnets),
    Key("address", _addresses, "addresses"),
    Key("endpoint", None),
    Key("preshared_key_file", None),
    Key("keepalive", integer(0, 65535, "seconds")),
    Key("listen", each(parse_address, "an address such as 192.0.2.10")),
    Key("listen_port", _PORT),
    _ENCAPSULATION,
    Key("sources", each(parse_prefix, "a prefix such as 0.0.0.0/0")),
    *_GRE,
    Key("mac", each(parse_mac, "an Ethernet address such as 02:00:5e:10:00:01", format_mac), "macs"),
    Key("agent", Section.boolean),
)
"""The keys of each [peers.NAME]."""
