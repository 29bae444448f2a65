"""``overlay services``: one module for each of its commands."""

from __future__ import annotations

import click

from overlay.cli.exits import Commands
from overlay.cli.services import importing


@click.group("services", cls=Commands)
def command() -> None:
    """Look after virtual services."""


for module in (importing,):
    command.add_command(module.command)
