"""The peers file: TOML in, one table or one sentence out.  The rows of its keys are in peers.keys.

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

import tomllib
from typing import TYPE_CHECKING

from peers import syntax
from peers.encapsulation import PORTS, has_ports
from peers.errors import KeyProblem, TableError
from peers.files import UnfitFileError, path_below, read_regular
from peers.foreign import recognize
from peers.keys import NETWORK, PEER, read_keys
from peers.lines import find_line
from peers.peer import KEY_TEXT_SIZE, PEER_NAME, TUN, Endpoint, Network, Peer, default_addresses
from peers.table import Table
from peers.toml_section import Section, describe

if TYPE_CHECKING:
    from pathlib import Path

TABLES = ("network", "peers")
NETWORK_KEYS, PEER_KEYS = (tuple(key.name for key in each) for each in (NETWORK, PEER))

FILE_SIZE = 64 * 1024 * 1024  # bytes; 50,000 peers take a quarter of it


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
    return TableError(path, *syntax.describe(text, message))


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
    values = read_keys(section, NETWORK)
    if not values.get("prefixes"):
        found = "is empty" if "prefixes" in values else "is missing"
        raise KeyProblem(
            (*section.keys, "prefix"),
            f'{found}; write what the overlay carries, such as prefix = "10.244.0.0/16"',
        )
    ports = {name: values.pop(port.key) for name, port in PORTS.items() if port.key in values}
    return Network(ports=ports, **values)


def read_peer(peers: Section, name: str, network: Network, directory: Path | None) -> Peer:
    """Return the peer *name* among *peers*; relative names are below *directory*, if there is one.  Raises KeyProblem."""
    if not PEER_NAME.fullmatch(name):
        raise KeyProblem(
            (*peers.keys, name),
            "is no peer name; write 1 to 63 letters, digits, dots, hyphens or underscores",
        )
    section = peers.section(name, f"write a [peers.{name}] table with public_key and subnets")
    section.refuse_unknown(PEER_KEYS)
    values = read_keys(section, PEER)
    subnets = values.get("subnets", ())
    if not subnets and not values.get("addresses") and network.device == TUN:
        raise KeyProblem(section.keys, "has neither subnets nor an address; write what lies behind it")
    used = values.get("encapsulation") or network.encapsulation
    listen_port = values.get("listen_port")
    if listen_port is not None and not has_ports(used):
        raise KeyProblem(
            (*section.keys, "listen_port"), f"is of no use, because {used} has no ports; remove it"
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
