"""The command line: one module for each command.

Shells complete commands, options, interfaces and peers after one line in their start file:

    eval "$(overlay completion bash)"      # ~/.bashrc
    eval "$(overlay completion zsh)"       # ~/.zshrc
    overlay completion fish | source       # ~/.config/fish/config.fish

Modules that take long to load are imported in the functions that use them, so that ``overlay status``, ``--help`` and
completion answer at once.
"""

from __future__ import annotations

import click

from overlay.cli import (
    capture,
    check,
    cni,
    completion,
    doctor,
    down,
    explain,
    exporting,
    genpsk,
    importing,
    keygen,
    log,
    log_level,
    manual,
    network,
    ping,
    pubkey,
    rotating,
    service,
    services,
    status,
    top,
    up,
    web,
)
from overlay.cli.exits import CommandGroup
from overlay.cli.version import show_version

EPILOG = """\
\b
A host joins with three commands:
  overlay keygen                      make its private key; the public key goes into peers.toml
  overlay check --peers peers.toml    check that file
  overlay up --peers peers.toml       connect
"""


@click.group(
    cls=CommandGroup,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True},
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=show_version,
    help="Show the versions of overlay and of what it runs on, and exit.",
)
def main() -> None:
    """Connect hosts, and the networks behind them, through encrypted tunnels."""


COMMANDS = (
    keygen,
    pubkey,
    genpsk,
    check,
    up,
    status,
    ping,
    capture,
    doctor,
    explain,
    top,
    log,
    log_level,
    web,
    services,
    network,
    service,
    cni,
    importing,
    exporting,
    rotating,
    manual,
    completion,
    down,
)

for module in COMMANDS:
    main.add_command(module.command)
