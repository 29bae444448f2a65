"""``overlay import``: the wg-quick files of one or several hosts as a peers file."""

# ruff: noqa: PLC0415  see overlay/cli/__init__.py

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import click

from overlay.cli.exits import SOMETHING_NAMED, Misuse
from overlay.cli.keyfiles import write_secret
from overlay.cli.options import FILE
from overlay.cli.output import format_some, show
from overlay.text import printable
from peers.files import UnfitFileError, read_regular

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from overlay.wg_quick.conf import Conf
    from overlay.wg_quick.importing import Imported

# Ours
FILE_SIZE = 16 * 1024 * 1024  # bytes; 50,000 peers take 10 MiB


@click.command(
    "import", epilog="Example: overlay import /etc/wireguard/wg0.conf --keys /etc/overlay > peers.toml"
)
@click.argument("files", type=FILE, nargs=-1, required=True, metavar="WG_QUICK_FILE...")
@click.option(
    "--keys",
    type=FILE,
    metavar="DIRECTORY",
    help="Write private keys here as NAME.key, and preshared keys as NAME.psk, readable by their owner only.",
)
@click.pass_context
def command(ctx: click.Context, files: tuple[Path, ...], keys: Path | None) -> None:
    """Print a peers file made from the wg-quick files of one or several hosts.

    Hosts are identified by their keys.  What has no counterpart is named on stderr, by line and with the reason; the
    exit code is 1 then.  Private keys are not printed: they stay in the files, or go to a directory with --keys, where
    no file is replaced.
    """
    from overlay.importing.places import Remarks, UnreadableError
    from overlay.wg_quick.importing import import_files

    remarks = Remarks()
    directory = None if keys is None else keys.absolute()
    try:
        imported = import_files([(str(path), _read(path)) for path in files], remarks, directory)
    except UnreadableError as error:
        raise Misuse(printable(str(error))) from error
    if directory is not None:
        _write_keys(directory, imported)
    show(imported.text.removesuffix("\n"))
    for remark in remarks.all():
        click.echo(printable(str(remark)), err=True)
    for sentence in _describe_keys(imported, directory):
        click.echo(printable(sentence), err=True)
    if remarks.all():
        ctx.exit(SOMETHING_NAMED)


def _read(path: Path) -> Conf:
    from overlay.wg_quick.conf import Conf

    try:
        data, _ = read_regular(path, FILE_SIZE)
        text = data.decode()
    except UnfitFileError as error:
        raise Misuse(f"{path} {error}; name a wg-quick file") from error
    except FileNotFoundError:
        raise Misuse(f"{path} does not exist; name the file to import") from None
    except IsADirectoryError:
        raise Misuse(f"{path} is a directory; name a file in it") from None
    except PermissionError:
        raise Misuse(f"{path} cannot be read: permission denied; run this as its owner or as root") from None
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise Misuse(f"{path}:{line}: is not UTF-8 text; name a wg-quick file") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise Misuse(f"{path} cannot be read: {reason}; name a readable file") from error
    return Conf.parse(text, str(path))


def _write_keys(directory: Path, imported: Imported) -> None:
    """Write all keys, or none if a file with another key is in the way.  Raises Failure or Misuse."""
    texts = _texts(imported)
    missing = [name for name in texts if not _has_it(directory / name, texts[name])]
    for name in missing:
        try:
            write_secret(directory / name, texts[name])
        except FileExistsError:
            raise _in_the_way(directory / name) from None


def _texts(imported: Imported) -> dict[str, str]:
    """Return the contents of key files, by name."""
    secrets: Mapping[str, str] = {
        **{f"{name}.key": key.to_base64() for name, key in imported.private_keys.items()},
        **{name: key.to_base64() for name, key in imported.preshared_keys.items()},
    }
    return {name: text + "\n" for name, text in secrets.items()}


def _has_it(path: Path, text: str) -> bool:
    """Return whether *path* already contains *text*.  Raises Misuse if it contains anything else."""
    import hmac
    import os

    if not os.path.lexists(path):
        return False
    try:
        data, _ = read_regular(path, 4096)
    except (OSError, UnfitFileError):
        raise _in_the_way(path) from None
    if not hmac.compare_digest(data.strip(), text.strip().encode()):
        raise _in_the_way(path)
    return True


def _in_the_way(path: Path) -> Misuse:
    return Misuse(
        f"{path} already exists with different contents and is not replaced; name another directory with --keys"
    )


def _describe_keys(imported: Imported, directory: Path | None) -> list[str]:
    """Return sentences that say where the keys are."""
    hosts = list(imported.private_keys)
    if directory is None:
        sentences = [
            f"the private key of {hosts[0]} stays in its file"
            if len(hosts) == 1
            else "private keys stay in their files"
        ]
        sentences[0] += (
            ": write it to a key file with --keys DIRECTORY"
            if len(hosts) == 1
            else ": write them to key files with --keys DIRECTORY"
        )
        if imported.preshared_keys:
            sentences.append(
                f"{format_some(list(imported.preshared_keys), 5)}: preshared keys that the peers file names; "
                "--keys writes them"
            )
        return sentences
    sentences = [
        f"{name} starts with `overlay up --peers PEERS_FILE --key {shlex.quote(str(directory / f'{name}.key'))}`"
        for name in hosts[:5]
    ]
    if len(hosts) > 1:
        sentences.append(
            "each host needs only its own private key: move the others to their hosts, and delete them here"
        )
    if imported.preshared_keys:
        sentences.append(
            "every host needs the preshared keys of the peers that it talks with, at the same path"
        )
    return sentences
