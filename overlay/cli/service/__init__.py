"""``overlay service``: this host's agent as a service of systemd."""

from __future__ import annotations

import click

from overlay.cli.exits import CommandGroup
from overlay.cli.service import commands


@click.group("service", cls=CommandGroup)
def command() -> None:
    """Run this host's agent as a service of systemd.

    For virtual services, which spread connections over servers, see `overlay services`.
    """


for each in (commands.install, commands.status, commands.remove):
    command.add_command(each)
