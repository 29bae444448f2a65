"""The commands, which write, enable, query and remove a unit for each interface."""

# ruff: noqa: PLC0415  see overlay/cli/__init__.py

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from overlay.cli.exits import Failure, Misuse
from overlay.cli.options import PathName, interface_option, json_option
from overlay.cli.output import show, show_json, warn
from overlay.cli.service.unit import MARK, build, name_of
from overlay.errors import HostError
from overlay.host import advice

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from peers.stores import Location

# Ours
DIRECTORY = Path("/etc/systemd/system")
TEMPORARY = (Path("/tmp"), Path("/var/tmp"))  # noqa: S108  to recognise them
SCHEMA = 1


def directory_option(command: Any) -> Any:
    """Give *command* ``--directory``."""
    return click.option(
        "--directory",
        type=PathName(file_okay=False),
        default=DIRECTORY,
        metavar="DIRECTORY",
        help="The directory of units.",
    )(command)


@click.command(
    "install",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    epilog="Example: overlay service install --peers /etc/overlay/peers.toml --masquerade",
)
@click.option("--print", "prints", is_flag=True, help="Print the unit, and change nothing.")
@directory_option
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def install(prints: bool, directory: Path, options: tuple[str, ...]) -> None:
    """Run the agent from now on and at each boot, with the OPTIONS of `overlay up`.

    Writes a unit for the interface, which confines the agent to what it needs on this host, enables it, and starts it,
    or restarts it if it runs with other options.  Each interface has a unit of its own.
    """
    interface, words, warnings = settled(options)
    try:
        text = build(interface, [*own_program(), "up", *words], uses_tmp=_uses_tmp(words))
    except ValueError as error:
        raise Misuse(
            f"{error.args[0]!r} has a character that a unit cannot hold: choose another name"
        ) from None
    if prints:
        show(text.rstrip("\n"))
        return
    name = name_of(interface)
    path = directory / name
    before = path.read_text() if _is_ours(path) else None
    is_new = _write(path, text)
    try:
        _systemctl("daemon-reload")
        _systemctl("enable", name)
    except HostError:
        _put_back(path, before)
        raise
    _systemctl("restart" if is_new else "start", name)
    for each in warnings:
        warn(each)
    show(f"{name} is enabled and started: see `systemctl status {name}` and `overlay status`")


@click.command("status")
@interface_option
@directory_option
@json_option
def status(interface: str, directory: Path, as_json: bool) -> None:
    """Show whether the agent of an interface is installed as a service, enabled, and running.

    The exit code is 0 if it runs, else 1.
    """
    name = name_of(interface)
    path = directory / name
    is_installed = _is_ours(path)
    enabled, active = (_systemctl(verb, name, check=False) for verb in ("is-enabled", "is-active"))
    if as_json:
        values = {"schema": SCHEMA, "unit": name, "path": str(path), "is_installed": is_installed}
        show_json(values | {"enabled": enabled or None, "active": active or None})
    elif is_installed:
        show(f"{name}: {enabled or 'unknown'}, {active or 'unknown'}; {path}")
    if not is_installed:
        raise Failure(f"there is no {path}: run `overlay service install`")
    if active not in {"active", "reloading"}:
        raise Failure(f"{name} does not run: see `journalctl -u {name}`")


@click.command("remove")
@interface_option
@directory_option
def remove(interface: str, directory: Path) -> None:
    """Stop the agent of an interface, and do not start it at boot any more.

    It stops as with `overlay down`; keys and peers files stay.
    """
    name = name_of(interface)
    path = directory / name
    if not path.exists():
        raise Failure(f"there is no {path}: there is nothing to remove")
    _refuse_foreign(path)
    _systemctl("disable", "--now", name)
    try:
        path.unlink()
    except OSError as error:
        raise Failure(f"{path} cannot be removed: {error.strerror}") from error
    _systemctl("daemon-reload")
    show(f"{name} is stopped and removed")


def settled(options: Sequence[str]) -> tuple[str, list[str], list[str]]:
    """Return the interface, *options* of `overlay up` that work in any directory, and a sentence for each file that
    does not exist yet.

    Raises click's exceptions for options that `overlay up` would refuse.
    """
    from overlay.cli.up import command as up

    with up.make_context("overlay up", list(options)) as context:
        words = [word for parameter in up.params for word in _words(context, parameter)]
        peers: Location = context.params["peers"]
        key: Path = context.params["key"]
        warnings = []
        if peers.is_missing_file():
            warnings.append(f"there is no {peers.absolute()}: the agent is restarted until that file exists")
        if not key.exists():
            warnings.append(
                f"there is no {key.absolute()}: unless no tunnel is encrypted, the agent is restarted until that file "
                f"exists; make it with `overlay keygen --key {key.absolute()}`"
            )
        return str(context.params["interface"]), words, warnings


def _words(context: click.Context, parameter: click.Parameter) -> Iterator[str]:
    """Yield the words that repeat *parameter*, if it was given."""
    from peers.stores import Location

    assert parameter.name is not None
    if context.get_parameter_source(parameter.name) != ParameterSource.COMMANDLINE:
        return
    value, option = context.params[parameter.name], max(parameter.opts, key=len)
    if isinstance(parameter, click.Option) and parameter.is_flag:
        yield option
        return
    yield option
    yield str(value.absolute()) if isinstance(value, Location | Path) else str(value)


def own_program() -> list[str]:
    """Return the command that starts this program by path: the script next to the interpreter, if there is one."""
    script = Path(sys.executable).parent / "overlay"
    return [str(script)] if os.access(script, os.X_OK) else [sys.executable, "-m", "overlay"]


def _uses_tmp(words: Sequence[str]) -> bool:
    return any(word.startswith(f"{place}/") for word in words for place in TEMPORARY)


def _write(path: Path, text: str) -> bool:
    """Write *text* to *path* atomically; return whether it was different before."""
    if path.exists():
        _refuse_foreign(path)
        if path.read_text() == text:
            return False
    try:
        with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            file.write(text)
        os.chmod(file.name, 0o644)
        os.replace(file.name, path)
    except OSError as error:
        raise Failure(f"{path} cannot be written: {error.strerror}; {advice.after(error)}") from error
    return True


def _put_back(path: Path, text: str | None) -> None:
    """Restore *path*, so that another attempt finds the host as this one did."""
    if text is None:
        path.unlink(missing_ok=True)
    else:
        _write(path, text)


def _is_ours(path: Path) -> bool:
    try:
        return path.read_text().startswith(MARK)
    except (OSError, ValueError):
        return False


def _refuse_foreign(path: Path) -> None:
    """Raise Failure if *path* was not written by this program."""
    if not _is_ours(path):
        raise Failure(f"{path} was not made by `overlay service install`: move it away, or keep using it")


def _systemctl(*arguments: str, check: bool = True) -> str:
    """Return the output of systemctl.  Raises Failure if it fails, unless *check* is false."""
    from overlay.host.process.service_manager import systemctl

    return systemctl(*arguments, check=check)
