"""``overlay network``: a network in etcd; one module for each of its commands."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from overlay.cli.exits import CommandGroup
from overlay.cli.network import (
    accepting,
    creating,
    editing,
    enrolling,
    exporting,
    importing,
    releasing,
    reserving,
    showing,
    tokens,
)

if TYPE_CHECKING:
    from collections.abc import Iterable


@click.group("network", cls=CommandGroup)
def command() -> None:
    """Manage a network in etcd: create it, see it, reserve subnets, edit its document, enroll hosts."""


_COMMANDS: Iterable[click.Command] = (
    creating.command,
    showing.command,
    editing.command,
    importing.command,
    exporting.command,
    reserving.command,
    releasing.command,
    enrolling.command,
    tokens.command,
    accepting.command,
)
for each in _COMMANDS:
    command.add_command(each)
