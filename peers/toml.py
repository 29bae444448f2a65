"""The peers file: TOML in, one table or one sentence out.

The keys of [network] are the fields of Network; ``peers.kinds`` has the other kinds of sections, and docs/peers-toml.md
describes them all to users.  Where a list is accepted, a single item is as well.
"""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Any

from peers import syntax
from peers.encapsulation import PORTS
from peers.errors import KeyProblem, StoreError, TableError
from peers.files import UnfitFileError, passing, read_regular
from peers.foreign import recognize
from peers.key import keys_of, read_keys
from peers.kinds import KINDS
from peers.lines import find_line
from peers.peer import Network
from peers.peer_section import PEERS
from peers.table import Table
from peers.toml_section import Section

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from peers.kind import Kind

NETWORK = keys_of(Network)
NETWORK_KEYS = tuple(key.name for key in NETWORK)

FILE_SIZE = 64 * 1024 * 1024  # bytes; 50,000 peers take a quarter of it


def load(path: Path) -> Table:
    """Return the table in the file *path*.  Raises TableError, also for a file that cannot be read, or StoreError."""
    return parse(read(path), path)


def read(path: Path) -> str:
    """Return the text in the file *path*.  Raises TableError, or StoreError if it may be read later as it is."""
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
        if isinstance(error, OSError) and (remedy := passing(error)) is not None:
            raise StoreError(f"{path} cannot be read ({reason}): {remedy}") from error
        raise TableError(path, None, f"it cannot be read ({reason}); name a readable file") from error
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        found = f"byte 0x{data[error.start]:02x} is not UTF-8"
        raise TableError(path, line, f"{found}; save the file as UTF-8 text") from None


def parse(text: str, path: Path, *, has_directory: bool = True) -> Table:
    """Return the table that *text* writes; *path* is its file, for errors and relative names.

    Without *has_directory* it is not a file, and the text must name files by absolute paths.

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


def read_document(document: Section, directory: Path | None, kinds: Collection[Kind[Any]] = KINDS) -> Table:
    """Return the table that *document* writes in sections of *kinds*.  Raises KeyProblem."""
    document.refuse_unknown(("network", *(kind.name for kind in kinds)))
    network = read_network(
        document.section("network", 'write a [network] table with prefix = "10.244.0.0/16"')
    )
    sections = {kind: kind.read_all(document, network, directory) for kind in kinds}
    return Table(network, sections.pop(PEERS), sections)


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
