"""The peers file: TOML in, one table or one sentence out.

```toml
[network]
prefix = "10.244.0.0/16"          # or a list; what the overlay carries
port = 51820                      # UDP, the default of all peers
mtu = 1420                        # of the device; default from the underlay
fwmark = 0xca6c                   # mark of the datagrams; default chosen by the agent
bulk = true                       # super-packets under one seal between agents of this project; the default
encapsulation = "wireguard"       # or one in the clear, such as "udp"
udp_port = 8285                   # UDP port of the encapsulation "udp"
vxlan_port = 4789                 # that of "vxlan"
geneve_port = 6081                # that of "geneve"
vni = 1                           # network identifier of "vxlan" and "geneve"
gre_key = 7                       # of "gre"; default none
gre_checksum = true               # whether what is sent by "gre" has checksums; default not
gre_sequence = true               # and sequence numbers
ttl = 64                          # of outer headers, or "inherit"; default the system's
device = "tun"                    # or "tap": Ethernet frames
stations = 4096                   # Ethernet addresses that a tap learns at one peer
point_to_point = true             # the device's address has the other of two peers as its far end

[peers.paris]
public_key = "..."                # base64, as WireGuard writes it; not needed where nothing is encrypted
subnets = ["10.244.1.0/24"]       # what lies behind it; may be left out if there is an address
address = "10.244.1.0"            # its own on the overlay, one of each family; default from its subnets
endpoint = "192.0.2.10:51820"     # where others call it: address or DNS name, port optional
preshared_key_file = "paris.psk"  # relative to this file's directory
keepalive = 25                    # seconds, 0 for none
listen = ["192.0.2.10"]           # addresses that the node itself binds to; default all
listen_port = 51820               # port that the node itself binds to; default the network's
encapsulation = "udp"             # of its tunnels with everyone; default the network's
sources = ["0.0.0.0/0"]           # from where it may send in the clear, beside its subnets
gre_key = 7                       # of its tunnels with everyone, as the next two; default the network's
gre_checksum = true
gre_sequence = true
mac = "02:00:5e:10:00:01"         # with vxlan, geneve or a tap: Ethernet addresses that are there; default derived
```

Where a list is accepted, so is its single item.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar, cast

from peers.addresses import Address, parse_address, parse_host_address, parse_prefix
from peers.encapsulation import DEFAULT_VNI, ENCAPSULATIONS, GRE_KEY, PORTS, VNI, WIREGUARD, has_ports
from peers.errors import KeyProblem, Keys, TableError
from peers.files import UnfitFileError, path_below, read_regular
from peers.foreign import recognize
from peers.lines import find_line
from peers.mac import format_mac, parse_mac
from peers.peer import (
    DEFAULT_STATIONS,
    INHERITED,
    KEY_TEXT_SIZE,
    MOST_STATIONS,
    PEER_NAME,
    TAP,
    TUN,
    Endpoint,
    Network,
    Peer,
    default_addresses,
    parse_public_key,
)
from peers.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

T = TypeVar("T")

TABLES = ("network", "peers")
NETWORK_KEYS = (
    "prefix",
    *(port.key for port in PORTS.values()),
    "mtu",
    "fwmark",
    "bulk",
    "encapsulation",
    "vni",
    "gre_key",
    "gre_checksum",
    "gre_sequence",
    "ttl",
    "device",
    "point_to_point",
    "stations",
)
PEER_KEYS = (
    "public_key",
    "subnets",
    "address",
    "endpoint",
    "preshared_key_file",
    "keepalive",
    "listen",
    "listen_port",
    "encapsulation",
    "sources",
    "gre_key",
    "gre_checksum",
    "gre_sequence",
    "mac",
)

FILE_SIZE = 64 * 1024 * 1024  # bytes; 50,000 peers take a quarter of it
SHOWN_SIZE = 60  # characters of a value that an error text repeats


def load(path: Path) -> Table:
    """Return the table in the file *path*.  Raises TableError, also for a file that cannot be read."""
    return parse(read(path), path)


def read(path: Path) -> str:
    """Return the text in the file *path*.  Raises TableError."""
    try:
        data, _ = read_regular(path, FILE_SIZE)
    except UnfitFileError as error:
        raise TableError(path, None, f"it {error}; name the peers file") from None
    except FileNotFoundError:
        raise TableError(path, None, "there is no such file; write it, or name the right one") from None
    except IsADirectoryError:
        raise TableError(path, None, "this is a directory; name the peers file in it") from None
    except PermissionError as error:
        raise TableError(path, None, "reading it is not permitted; change its mode or owner") from error
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        reason = (isinstance(error, OSError) and error.strerror) or str(error)
        raise TableError(path, None, f"it cannot be read ({reason}); name a readable file") from error
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        found = f"byte 0x{data[error.start]:02x} is not UTF-8"
        raise TableError(path, line, f"{found}; save the file as UTF-8 text") from None


def parse(text: str, path: Path, *, has_directory: bool = True) -> Table:
    """Return the table that *text* writes; *path* is its file, for errors and relative names.

    Without *has_directory* it is no file, and files that the text names are named from the root.

    Raises TableError, and nothing else, for any text.
    """
    try:
        return read_document(parse_document(text, path), path.parent if has_directory else None)
    except KeyProblem as problem:
        raise to_error(problem, text, path) from problem


def parse_document(text: str, path: Path) -> Section:
    """Return the whole of *text*, which is TOML.  Raises TableError if it is not."""
    try:
        document = tomllib.loads(
            text.removeprefix("\ufeff")
        )  # some editors begin UTF-8 with a byte order mark
    except tomllib.TOMLDecodeError as error:
        raise _syntax_error(text, path, str(error)) from None
    except ValueError:
        raise TableError(
            path, None, "a number has thousands of digits; write one in the range of its key"
        ) from None
    except RecursionError:
        raise TableError(path, None, "arrays or tables are nested too deeply; write plain lists") from None
    if "network" not in document and (foreign := recognize(text)) is not None:
        raise TableError(path, None, foreign)
    return Section((), document)


def to_error(problem: KeyProblem, text: str, path: Path) -> TableError:
    """Return *problem* with the line of *text* that it is about."""
    return TableError(path, find_line(text.removeprefix("\ufeff"), problem.keys), str(problem))


def _syntax_error(text: str, path: Path, message: str) -> TableError:
    if (foreign := recognize(text)) is not None:
        return TableError(path, None, foreign)
    match = re.search(r" \(at (?:line (\d+), column \d+|end of document)\)$", message)
    if match is None:
        return TableError(path, None, f"this is not TOML: {message}")
    line = int(match[1]) if match[1] else text.rstrip("\n").count("\n") + 1
    found = message[: match.start()]
    if found.startswith("Cannot declare"):
        return TableError(path, line, "this table is here twice; write each [peers.NAME] once")
    if found.startswith("Cannot overwrite"):
        return TableError(path, line, "this key is here twice; write it once")
    return TableError(path, line, f"this is not TOML: {found[:1].lower()}{found[1:]}")


@dataclass(frozen=True, slots=True)
class Section:
    """One table of the file and its place.  Its methods raise KeyProblem for what is not accepted."""

    keys: Keys
    values: Mapping[str, object]

    def refuse_unknown(self, known: tuple[str, ...]) -> None:
        for key in self.values:
            if key in known:
                continue
            if key == "private_key":
                remedy = "keep private keys out of this file and write the public_key"
            elif close := difflib.get_close_matches(key, known, n=1):
                remedy = f"did you mean {close[0]}?"
            else:
                remedy = f"accepted are {', '.join(known)}"
            raise KeyProblem((*self.keys, key), f"is not known; {remedy}")

    def section(self, key: str, remedy: str) -> Section:
        if key not in self.values:
            raise KeyProblem((*self.keys, key), f"is missing; {remedy}")
        value = self.values[key]
        if not isinstance(value, dict):
            raise KeyProblem((*self.keys, key), f"is {_describe(value)}; {remedy}")
        return Section((*self.keys, key), cast("Mapping[str, object]", value))

    def integer(self, key: str, low: int, high: int, what: str) -> int | None:
        value = self.values.get(key)
        if value is None:
            return None
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
            return value
        hint = ", without quotes" if isinstance(value, str) else ""
        raise KeyProblem((*self.keys, key), f"is {_describe(value)}; write {what} from {low} to {high}{hint}")

    def boolean(self, key: str) -> bool | None:
        value = self.values.get(key)
        if value is None or isinstance(value, bool):
            return value
        raise KeyProblem((*self.keys, key), f"is {_describe(value)}; write true or false, without quotes")

    def string(self, key: str, accepted: str) -> str | None:
        value = self.values.get(key)
        if value is None or isinstance(value, str):
            return value
        raise KeyProblem((*self.keys, key), f"is {_describe(value)}; write {accepted} in quotes")

    def choice(self, key: str, accepted: tuple[str, ...]) -> str | None:
        listed = f"{', '.join(accepted[:-1])} or {accepted[-1]}"
        text = self.string(key, listed)
        if text is None or text in accepted:
            return text
        raise KeyProblem((*self.keys, key), f"is {_describe(text)}; write {listed}")

    def each(self, key: str, parse_item: Callable[[str], T], accepted: str) -> tuple[T, ...] | None:
        """Return the items of a list or of a single string, parsed; None if *key* is absent."""
        value = self.values.get(key)
        if value is None:
            return None
        if not isinstance(value, str | list):
            raise KeyProblem(
                (*self.keys, key), f"is {_describe(value)}; write {accepted} in quotes, or a list"
            )
        items: list[T] = []
        for index, item in enumerate([value] if isinstance(value, str) else value):
            place = (*self.keys, key) if isinstance(value, str) else (*self.keys, key, index)
            if not isinstance(item, str):
                raise KeyProblem(place, f"is {_describe(item)}; write {accepted} in quotes")
            try:
                items.append(parse_item(item))
            except ValueError as error:
                raise KeyProblem(place, f"{_describe(item)} {error}") from None
        return tuple(items)


def read_document(document: Section, directory: Path | None) -> Table:
    """Return the table that *document* writes.  Raises KeyProblem."""
    document.refuse_unknown(TABLES)
    network = read_network(
        document.section("network", 'write a [network] table with prefix = "10.244.0.0/16"')
    )
    section = document.section("peers", "write a [peers.NAME] table for each host")
    peers = {name: read_peer(section, name, network, directory) for name in section.values}
    return Table(network, peers)


def read_network(section: Section) -> Network:
    """Return what *section* says of the network.  Raises KeyProblem."""
    section.refuse_unknown(NETWORK_KEYS)
    prefixes = section.each("prefix", parse_prefix, "a prefix such as 10.244.0.0/16")
    if not prefixes:
        found = "is missing" if prefixes is None else "is empty"
        raise KeyProblem(
            (*section.keys, "prefix"),
            f'{found}; write what the overlay carries, such as prefix = "10.244.0.0/16"',
        )
    _refuse_repeated((*section.keys, "prefix"), prefixes)
    return Network(
        prefixes,
        _read_ports(section),
        section.integer("mtu", 576, 65535, "bytes"),
        section.integer("fwmark", 1, 2**32 - 1, "a mark"),
        section.boolean("bulk") is not False,
        _read_encapsulation(section) or WIREGUARD,
        DEFAULT_VNI if (vni := section.integer("vni", 0, VNI.largest, "a number")) is None else vni,
        section.integer("gre_key", 0, GRE_KEY.largest, "a number"),
        section.boolean("gre_checksum"),
        section.boolean("gre_sequence"),
        _read_ttl(section),
        section.choice("device", (TUN, TAP)) or TUN,
        section.boolean("point_to_point") is True,
        section.integer("stations", 1, MOST_STATIONS, "a number of Ethernet addresses") or DEFAULT_STATIONS,
    )


def _read_ports(section: Section) -> dict[str, int]:
    """Return the ports that *section* names, by encapsulation."""
    named = {name: section.integer(port.key, 1, 65535, "a UDP port") for name, port in PORTS.items()}
    return {name: number for name, number in named.items() if number is not None}


def _read_ttl(section: Section) -> int | None:
    if section.values.get("ttl") == "inherit":
        return INHERITED
    return section.integer("ttl", 1, 255, 'the word "inherit" in quotes, or a number')


def read_peer(peers: Section, name: str, network: Network, directory: Path | None) -> Peer:
    """Return the peer *name* among *peers*; relative names are below *directory*, if there is one.  Raises KeyProblem."""
    if not PEER_NAME.fullmatch(name):
        raise KeyProblem(
            (*peers.keys, name),
            "is no peer name; write 1 to 63 letters, digits, dots, hyphens or underscores",
        )
    section = peers.section(name, f"write a [peers.{name}] table with public_key and subnets")
    section.refuse_unknown(PEER_KEYS)
    subnets = section.each("subnets", parse_prefix, "a prefix such as 10.244.1.0/24")
    addresses = section.each("address", parse_host_address, "an address such as 10.244.1.1")
    if not subnets and not addresses and network.device == TUN:
        raise KeyProblem(section.keys, "has neither subnets nor an address; write what lies behind it")
    if addresses:
        _refuse_second_of_family((*section.keys, "address"), addresses)
    listen_port = section.integer("listen_port", 1, 65535, "a UDP port")
    listen = section.each("listen", parse_address, "an address such as 192.0.2.10") or ()
    _refuse_repeated((*section.keys, "listen"), listen)
    sources = section.each("sources", parse_prefix, "a prefix such as 0.0.0.0/0") or ()
    _refuse_repeated((*section.keys, "sources"), sources)
    encapsulation = _read_encapsulation(section)
    used = encapsulation or network.encapsulation
    if listen_port is not None and not has_ports(used):
        raise KeyProblem(
            (*section.keys, "listen_port"), f"is of no use, because {used} has no ports; remove it"
        )
    macs = section.each("mac", parse_mac, "an Ethernet address such as 02:00:5e:10:00:01") or ()
    _refuse_repeated((*section.keys, "mac"), tuple(map(format_mac, macs)))
    return Peer(
        name,
        _read_public_key(section),
        subnets or (),
        addresses or default_addresses(subnets or (), network.prefixes),
        _read_endpoint(section, listen_port or network.port_for(used), used),
        _read_preshared_key_file(section, directory),
        section.integer("keepalive", 0, 65535, "seconds") or 0,
        listen,
        listen_port,
        encapsulation,
        sources,
        section.integer("gre_key", 0, GRE_KEY.largest, "a number"),
        section.boolean("gre_checksum"),
        section.boolean("gre_sequence"),
        macs,
    )


def _read_encapsulation(section: Section) -> str | None:
    return section.choice("encapsulation", ENCAPSULATIONS)


def _read_public_key(section: Section) -> bytes | None:
    text = section.string("public_key", "the public key")
    if text is None:
        return None
    try:
        return parse_public_key(text)
    except ValueError as error:
        raise KeyProblem((*section.keys, "public_key"), str(error)) from None


def _read_endpoint(section: Section, default_port: int, encapsulation: str) -> Endpoint | None:
    text = section.string("endpoint", "an address or a DNS name")
    if text is None:
        return None
    try:
        endpoint = Endpoint.parse(text, default_port)
    except ValueError as error:
        raise KeyProblem((*section.keys, "endpoint"), f"{_describe(text)} {error}") from None
    if endpoint.port and not has_ports(encapsulation):
        raise KeyProblem(
            (*section.keys, "endpoint"),
            f"{_describe(text)} has a port, and {encapsulation} has none; write {endpoint.host}",
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
        raise KeyProblem(keys, f"is {_describe(text)}; write the path of a file")
    try:
        return path_below(directory, text)
    except ValueError as error:
        raise KeyProblem(keys, f"is {_describe(text)}, {error}") from None


def _refuse_second_of_family(keys: Keys, addresses: tuple[Address, ...]) -> None:
    seen: set[int] = set()
    for index, address in enumerate(addresses):
        if address.version in seen:
            raise KeyProblem(
                (*keys, index),
                f"{address} is a second IPv{address.version} address; write at most one of each family",
            )
        seen.add(address.version)


def _refuse_repeated(keys: Keys, values: tuple[object, ...]) -> None:
    counts: Counter[object] = Counter()
    for index, value in enumerate(values):
        counts[value] += 1
        if counts[value] > 1:
            raise KeyProblem((*keys, index), f"{value} is here twice; write it once")


def _describe(value: object) -> str:
    """Return *value* for an error text: on one line, and short."""
    match value:
        case bool():
            return str(value).lower()
        case int() if abs(value) >= 2**64:
            return "a number beyond 64 bits"
        case int() | float():
            return str(value)
        case str():
            shown = repr(value)
            return shown if len(shown) <= SHOWN_SIZE else f"{shown[:SHOWN_SIZE]}..."
        case list():
            return "an array"
        case dict():
            return "a table"
        case _:
            return "a date or time"
