"""``overlay services``: one module for each of its commands; without one it lists the services."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from overlay.cli.exits import CommandGroup
from overlay.cli.services import checking, importing, listing, setting

if TYPE_CHECKING:
    from collections.abc import Iterable

    from click.shell_completion import CompletionItem

LIST = "list"


class ServicesCommands(CommandGroup):
    """A group in which the command ``list`` may be left out."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read ``overlay services web`` as ``overlay services list web``.

        Without arguments it completes commands, in shell_complete().
        """
        if not args and ctx.resilient_parsing:
            return super().parse_args(ctx, args)
        if not args or (args[0] not in self.commands and args[0] != "--help"):
            args = [LIST, *args]
        return super().parse_args(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return the commands, and the options of ``list``."""
        found = super().shell_complete(ctx, incomplete)
        known = {each.value for each in found}
        listed = self.commands[LIST].make_context(LIST, [], parent=ctx, resilient_parsing=True)
        options = self.commands[LIST].shell_complete(listed, incomplete)
        return found + [each for each in options if each.value not in known]


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
