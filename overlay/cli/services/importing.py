"""``overlay services import``: services of keepalived or ipvsadm as sections of a peers file."""

# ruff: noqa: PLC0415  see overlay/cli/__init__.py

from __future__ import annotations

import glob
import os
import re
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from overlay.cli.exits import SOMETHING_NAMED, Misuse
from overlay.cli.options import FILE, PeersLocation
from overlay.cli.output import show, suggest
from overlay.text import printable
from peers.files import UnfitFileError, read_regular

if TYPE_CHECKING:
    from collections.abc import Sequence

    from overlay.importing.places import Remarks
    from overlay.services.importing.composing import ExistingFile
    from overlay.services.importing.lines import File
    from overlay.services.importing.plan import Plan
    from peers.stores import Location

# Ours
FILE_SIZE = 16 * 1024 * 1024  # bytes of one file
MOST_FILES = 10_000  # files that match one pattern
STANDARD_INPUT = "-"

BRACES = re.compile(r"\{([^{}]*)\}")


@click.command(
    "import",
    epilog="Example: overlay services import /etc/keepalived/keepalived.conf --director lb1 --director lb2",
)
@click.argument("keepalived_conf", type=FILE, required=False, metavar="[KEEPALIVED_CONF]")
@click.option(
    "--ipvsadm",
    "rules",
    type=FILE,
    metavar="RULES",
    help="A file with the output of ipvsadm -Sn, instead of a configuration of keepalived; - for standard input.",
)
@click.option(
    "--peers",
    type=PeersLocation(readable=False),
    metavar="FILE",
    help="The peers file to which the output will be appended; the output names its peers.",
)
@click.option(
    "--director",
    "directors",
    multiple=True,
    metavar="NAME",
    help="A peer that balances; for several, repeat it.",
)
@click.option("--config-id", metavar="ID", help="The value of keepalived's -i, for lines with @ID.")
@click.pass_context
def command(
    ctx: click.Context,
    keepalived_conf: Path | None,
    rules: Path | None,
    peers: Location | None,
    directors: tuple[str, ...],
    config_id: str | None,
) -> None:
    """Print the services of a keepalived.conf, or of ipvsadm, as sections of a peers file.

    What cannot be carried over is named on stderr, by line and with the reason; the exit code is 1 then.  For a file
    that cannot be read as such, nothing is printed, and the exit code is 2.  With --peers the output is made for
    appending to that file; without, it is a complete file, in which servers are unencrypted peers with ipip.
    """
    from overlay.importing.places import Remarks, UnreadableError
    from overlay.services.importing.composing import CannotFollowError, compose

    source = rules if rules is not None else keepalived_conf
    if source is None or (rules is not None and keepalived_conf is not None):
        raise Misuse("name one file: a keepalived.conf, or the rules of ipvsadm with --ipvsadm")
    if rules is not None and config_id is not None:
        raise Misuse(
            "--config-id is for keepalived's configuration, and rules of ipvsadm have no such lines; remove it"
        )
    known = None if peers is None else _read_peers(peers, directors)
    _check_directors(directors, known)
    remarks = Remarks()
    try:
        plan = _read(source, remarks, config_id, is_rules=rules is not None)
    except UnreadableError as error:
        raise Misuse(str(error)) from error
    title = f"Services of {source}, by overlay services import"
    try:
        text = compose(plan, remarks, title, directors, known)
    except CannotFollowError as error:
        raise Misuse(
            f"no section can follow {peers}, because it writes its tables in one line; write [peers.NAME] lines in it"
        ) from error
    if text:
        show(text.removesuffix("\n"))
    for remark in remarks.all():
        click.echo(printable(str(remark)), err=True)
    if not text:
        click.echo(f"{source}: no service could be carried over", err=True)
    if remarks.all() or not text:
        ctx.exit(SOMETHING_NAMED)


def _read(source: Path, remarks: Remarks, config_id: str | None, *, is_rules: bool) -> Plan:
    from overlay.services.importing.keepalived import read_keepalived
    from overlay.services.importing.lines import File
    from overlay.services.importing.rules import read_rules

    if str(source) == STANDARD_INPUT:
        file = File("standard input", _decode(sys.stdin.buffer.read(FILE_SIZE)))
    else:
        try:
            file = File(str(source), _read_text(source))
        except (OSError, ValueError, UnfitFileError) as error:
            raise Misuse(f"{source}: {_why(error)}") from error
    if is_rules:
        return read_rules(file, _port_of, remarks)
    return read_keepalived(file, _include, remarks, config_id)


def _include(pattern: str, beside: str) -> Sequence[File]:
    """Return the files that match *pattern*, relative to the file *beside*, sorted by name."""
    from overlay.services.importing.lines import File

    directory = os.path.dirname(beside)
    paths = [
        path for each in _alternatives(pattern) for path in sorted(glob.glob(os.path.join(directory, each)))
    ]
    found = []
    for path in paths[:MOST_FILES]:
        try:
            found.append(File(path, _read_text(Path(path))))
        except IsADirectoryError:
            continue
        except (OSError, ValueError, UnfitFileError) as error:
            raise Misuse(f"{path}: {_why(error)}") from error
    return found


def _alternatives(pattern: str) -> list[str]:
    """Return the patterns that *pattern* stands for, with its {A,B} expanded as by GLOB_BRACE."""
    pending, found = [pattern], list[str]()
    while pending and len(pending) + len(found) < MOST_FILES:
        each = pending.pop(0)
        match = BRACES.search(each)
        if match is None:
            found.append(each)
        else:
            pending += [each[: match.start()] + item + each[match.end() :] for item in match[1].split(",")]
    return found


def _read_text(path: Path) -> str:
    data, _ = read_regular(path, FILE_SIZE)
    return _decode(data)


def _decode(data: bytes) -> str:
    """Return *data* as text: each line is UTF-8, or otherwise Latin-1, as in old comments."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "\n".join(map(_decode_line, data.split(b"\n")))


def _decode_line(line: bytes) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError:
        return line.decode("latin-1")


def _why(error: Exception) -> str:
    match error:
        case FileNotFoundError():
            return "the file does not exist; name the one to import"
        case IsADirectoryError():
            return "this is a directory; name a file in it"
        case PermissionError():
            return "permission denied; change its mode or owner"
        case UnfitFileError():
            return f"it {error}; name a file to import"
        case _:
            return f"it cannot be read ({getattr(error, 'strerror', None) or error}); name a readable file"


def _port_of(name: str, protocol: str) -> int | None:
    try:
        return socket.getservbyname(name, protocol)
    except OSError:
        return None


def _read_peers(location: Location, directors: tuple[str, ...]) -> ExistingFile:
    """Return the peers file at *location*.  Raises TableError, and Misuse for a director that is not in it."""
    from overlay.services.importing.composing import ExistingFile
    from peers import toml
    from peers.stores import FILE

    if location.store != FILE:
        raise Misuse(f"--peers {location}: sections can only be appended to a file; write the path of one")
    path = Path(location.place)
    text = toml.read(path)
    known = ExistingFile(path, text, toml.parse(text, path))
    for name in directors:
        if name not in known.table.peers:
            raise Misuse(
                f"--director {name}: {path} has no such peer; {suggest(name, list(known.table.peers))}"
            )
    return known


def _check_directors(directors: tuple[str, ...], known: ExistingFile | None) -> None:
    """Raise Misuse for names that cannot be names of peers, or are given twice."""
    from peers.peer import PEER_NAME

    for index, name in enumerate(directors):
        if name in directors[:index]:
            raise Misuse(f"--director {name} is given twice; give it once")
        if known is None and not PEER_NAME.fullmatch(name):
            raise Misuse(
                f"--director {printable(name)!r} is not the name of a peer; write 1 to 63 letters, digits, dots, "
                "hyphens or underscores"
            )
