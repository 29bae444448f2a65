"""``overlay cni``: install the plugin and its network for container runtimes, and remove them."""

from __future__ import annotations

import click

from overlay.cli.cni import installing, listing
from overlay.cli.exits import CommandGroup


@click.group("cni", cls=CommandGroup)
def command() -> None:
    """Let podman, containerd and CRI-O attach containers to the overlay."""


for each in (installing.install, listing.command, installing.uninstall):
    command.add_command(each)
