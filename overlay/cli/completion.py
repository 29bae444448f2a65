"""``overlay completion``: the scripts for shells that complete commands, options, interfaces and peers."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from overlay.cli.output import show

# Ours
SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_OVERLAY_COMPLETE"
# click's functions set these variables of the user's shell unless they are declared (click 8.1 to 8.5)
_DECLARED = {
    "bash": ("    local response\n", "    local response type value completion\n"),
    "zsh": ("    local -a response\n", "    local -a response\n    local type key descr\n"),
}


@click.command("completion", epilog="Example: overlay completion bash > /etc/bash_completion.d/overlay")
@click.argument("shell", type=click.Choice(SHELLS), metavar="SHELL")
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print the script with which SHELL completes commands, options, interfaces and peers.

    Put it where the shell looks: /etc/bash_completion.d/overlay, a file _overlay in zsh's fpath, or
    ~/.config/fish/completions/overlay.fish.
    """
    made = get_completion_class(shell)
    assert made is not None
    root = ctx.find_root()
    show(keeping_variables(shell, made(root.command, {}, "overlay", VARIABLE).source()).rstrip("\n"))


def keeping_variables(shell: str, source: str) -> str:
    """Return click's *source*, changed so that it sets no variable of the user's shell."""
    found, declared = _DECLARED.get(shell, ("", ""))
    return source.replace(found, declared, 1) if found else source
