"""``overlay services``: one module for each of its commands; without one it lists the services."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from overlay.cli.exits import Commands
from overlay.cli.services import checking, importing, listing, setting

if TYPE_CHECKING:
    from collections.abc import Iterable

LIST = "list"


class ServicesCommands(Commands):
    """A group in which the command to list may be left out."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read ``overlay services web`` as ``overlay services list web``."""
        if not args or (args[0] not in self.commands and args[0] != "--help"):
            args = [LIST, *args]
        return super().parse_args(ctx, args)


@click.group("services", cls=ServicesCommands)
def command() -> None:
    """Manage virtual services: list them, set and check their servers by hand, import them.

    To run the agent as a service of systemd, see `overlay service`.
    """


_COMMANDS: Iterable[click.Command] = (
    listing.command,
    setting.drain,
    setting.enable,
    setting.disable,
    setting.weight,
    checking.command,
    importing.command,
)
for each in _COMMANDS:
    command.add_command(each)
