"""Options that several commands have."""

# ruff: noqa: PLC0415  only completion asks agents, and not every command reads peers

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem

from overlay import defaults
from overlay.cli.schema import JSON_OPTION, WANTS_JSON

if TYPE_CHECKING:
    from collections.abc import Callable

Command = TypeVar("Command", bound="Callable[..., Any]")

# Specification
INTERFACE_SIZE = 15  # bytes; the kernel's IFNAMSIZ - 1

# Ours
LOG_LEVELS = ("debug", "info", "warning", "error")


class InterfaceName(click.ParamType):  # type: ignore[type-arg]  # older releases of click have no argument here
    """A name that a network interface can have."""

    name = "interface"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return *value*.  Fails if the kernel would not accept it."""
        is_name = 0 < len(value.encode(errors="surrogateescape")) <= INTERFACE_SIZE and value not in {
            ".",
            "..",
        }
        # The kernel refuses slash, colon and white space; with a percent sign it chooses a name itself.
        if not is_name or not value.isprintable() or any(character in "/:% " for character in value):
            self.fail(
                f"{value!r} is not an interface name; write 1 to {INTERFACE_SIZE} letters and digits",
                param,
                ctx,
            )
        return value

    def shell_complete(
        self,
        ctx: click.Context,
        param: click.Parameter,  # noqa: ARG002  click's signature
        incomplete: str,
    ) -> list[CompletionItem]:
        """Return the interfaces whose agents run here."""
        from overlay.cli.agents import running_interfaces

        return [CompletionItem(name) for name in running_interfaces(ctx) if name.startswith(incomplete)]


class PathName(click.Path):
    """A path, which need not exist: the code that opens it reports errors.  An empty path is refused."""

    def __init__(self, *, allow_dash: bool = False, file_okay: bool = True) -> None:
        super().__init__(path_type=Path, readable=False, allow_dash=allow_dash, file_okay=file_okay)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return *value* as a Path.  Fails if it is empty, for example from an unset variable of a script."""
        if value == "":
            self.fail("it is empty: write a path", param, ctx)
        return super().convert(value, param, ctx)


FILE = PathName()


class ListenPlace(click.ParamType):  # type: ignore[type-arg]  # as InterfaceName
    """Where to listen: an address with a port, or the path of a unix socket."""

    name = "place"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return a Place.  Fails for anything else."""
        from peers.listening import parse_place

        try:
            return parse_place(value) if isinstance(value, str) else value
        except ValueError as error:
            self.fail(f"{value!r} {error}", param, ctx)


class Number(click.IntRange):
    """A whole number in a range, both ends included."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return *value* as an int.  Fails for anything else, with what is accepted."""
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter:
            accepted = f"from {self.min} to {self.max}" if self.max is not None else f"of at least {self.min}"
            self.fail(f"{value!r} is not a number {accepted}", param, ctx)


class Seconds(click.FloatRange):
    """A finite number of seconds in a range, both ends included."""

    name = "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return *value* as a float.  Fails outside the range, and for ``nan``."""
        try:
            seconds = super().convert(value, param, ctx)
        except click.BadParameter:
            seconds = math.nan
        if not math.isfinite(seconds):
            self.fail(
                f"{value!r} is not a number of seconds from {self.min:.12g} to {self.max:.12g}", param, ctx
            )
        return seconds


class PeersLocation(click.Path):
    """Where the peer table is: a path, or a store and a place in it.  Completed as a path."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return a Location.  Fails for an unknown store."""
        from peers.errors import StoreError
        from peers.stores import Location

        if value == "":
            self.fail("it is empty: write a path", param, ctx)
        try:
            return Location.parse(os.fsdecode(super().convert(value, param, ctx)))
        except StoreError as error:
            self.fail(str(error), param, ctx)


def interface_option(command: Command) -> Command:
    """Give *command* ``--interface``."""
    return click.option(
        "--interface",
        type=InterfaceName(),
        default=defaults.INTERFACE,
        metavar="NAME",
        help="The interface of the agent.",
    )(command)


def peer_argument(*, required: bool = True) -> Callable[[Command], Command]:
    """Give a command ``PEER``, completed with the peers of the running agent."""
    return click.argument("peer", required=required, shell_complete=_complete_peer)


def key_option(help_text: str) -> Callable[[Command], Command]:
    """Give a command ``--key``."""
    return click.option("--key", type=FILE, default=defaults.KEY, metavar="FILE", help=help_text)


def peers_option(command: Command) -> Command:
    """Give *command* ``--peers``."""
    return click.option(
        "--peers",
        type=PeersLocation(readable=False),
        default=defaults.PEERS,
        metavar="FILE",
        help=(
            "The peers file, the same on every host, or a network in etcd: etcd://HOST:2379/NAME, or flannel's: "
            "flannel+etcd://HOST:2379/PREFIX."
        ),
    )(command)


def json_option(command: Command) -> Command:
    """Give *command* ``--json``, as the argument *as_json*; errors, also those of other options, are then JSON."""
    return click.option(
        JSON_OPTION,
        "as_json",
        is_flag=True,
        is_eager=True,
        callback=_note_json,
        help="Print JSON, for a program to read.",
    )(command)


def _note_json(ctx: click.Context, _: click.Parameter, value: bool) -> bool:
    ctx.meta[WANTS_JSON] = value
    return value


def _complete_peer(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the peers of the running agent that begin with *incomplete*."""
    from overlay.cli.agents import known_peers

    names = known_peers(ctx, ctx.params.get("interface") or defaults.INTERFACE)
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]
