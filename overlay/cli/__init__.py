"""The command line: one module for each command.

Shells complete commands, options, interfaces and peers after one line in their start file:

    eval "$(_OVERLAY_COMPLETE=bash_source overlay)"     # ~/.bashrc
    eval "$(_OVERLAY_COMPLETE=zsh_source overlay)"      # ~/.zshrc
    _OVERLAY_COMPLETE=fish_source overlay | source      # ~/.config/fish/config.fish

Modules that take long to load are imported by the functions that use them, so that ``overlay status``, ``--help``
and completion answer at once.
"""

from __future__ import annotations

import click

from overlay.cli import up
from overlay.cli.exits import Commands


def show_version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    """Print the version of the installed package and end."""
    if not value or ctx.resilient_parsing:
        return
    from importlib import metadata

    try:
        version = metadata.version("overlay")
    except metadata.PackageNotFoundError:
        version = "from a source tree, not installed"
    click.echo(f"overlay {version}")
    ctx.exit()


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=show_version,
    help="Show the version and exit.",
)
def main() -> None:
    """An encrypted overlay network between hosts, and what lies behind them.

    \b
    A host joins with three commands:
      overlay keygen                     make its key, and put the public key into peers.toml
      overlay check --peers peers.toml   see whether the file is right
      overlay up --peers peers.toml      connect
    """


for module in (up,):
    main.add_command(module.command)
