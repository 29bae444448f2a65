"""``overlay completion``: what a shell needs to complete commands, options, interfaces and peers."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from overlay.cli.output import show

# Ours
SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_OVERLAY_COMPLETE"


@click.command("completion", epilog="Example: overlay completion bash > /etc/bash_completion.d/overlay")
@click.argument("shell", type=click.Choice(SHELLS), metavar="SHELL")
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print the script by which SHELL completes commands, options, interfaces and peers.

    Put it where the shell looks: /etc/bash_completion.d/overlay, a file _overlay in zsh's fpath, or
    ~/.config/fish/completions/overlay.fish.
    """
    made = get_completion_class(shell)
    assert made is not None
    root = ctx.find_root()
    show(made(root.command, {}, "overlay", VARIABLE).source().rstrip("\n"))
