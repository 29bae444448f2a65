"""``overlay down``: stop the agent of an interface."""

# ruff: noqa: PLC0415  completion and --help do not need the control socket

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from overlay.cli.agents import agent_path, ask
from overlay.cli.exits import Failure
from overlay.cli.options import interface_option
from overlay.cli.output import show, warn
from overlay.cli.surroundings import Surroundings
from overlay.numbers import count

if TYPE_CHECKING:
    from overlay.cli.surroundings import Remover

# Ours
PATIENCE = 10.0  # seconds; an agent with 10,000 routes takes two
POLL_INTERVAL = 0.05


@click.command("down")
@interface_option
@click.option(
    "--leave",
    is_flag=True,
    help="In a network in etcd: give the subnet of this host back at once, and forget the network.",
)
@click.pass_context
def command(ctx: click.Context, interface: str, leave: bool) -> None:
    """Stop the agent of an interface and wait until it is gone.

    The agent removes its routes, its addresses and the interface, and restores what --fix-sysctl changed.  If the agent
    was killed or ended with an error, what it left behind is removed: packets for the overlay, rejected until then,
    take the other routes of this host.
    """
    from overlay.host.control import NoAgentError, TakenError, is_answered

    surroundings = Surroundings.of(ctx)
    deadline = surroundings.now() + PATIENCE
    while True:
        try:
            answer = ask(ctx, interface, op="down", **({"leave": True} if leave else {}))
            break
        except NoAgentError:
            try:
                if not _put_back(surroundings.remove_leftovers, agent_path(ctx, interface), interface):
                    raise
            except TakenError:  # an agent that is just starting does not listen yet
                if surroundings.now() >= deadline:
                    raise
                surroundings.sleep(POLL_INTERVAL)
            else:
                return
    process = answer.get("pid")
    if answer.get("problem"):
        warn(str(answer["problem"]))
    deadline = surroundings.now() + PATIENCE
    # The process is checked first, then the socket: in a container the process may not be visible.
    while (isinstance(process, int) and _lives(process)) or is_answered(agent_path(ctx, interface)):
        if surroundings.now() >= deadline:
            raise Failure(
                f"the agent of {interface} (process {process}) still runs after {PATIENCE:g} s: "
                f"see its log, and end it with `kill -9 {process}` if it hangs"
            )
        surroundings.sleep(POLL_INTERVAL)
    show(f"the agent of {interface} (process {process}) has stopped")


def _put_back(remove: Remover | None, path: Path, interface: str) -> bool:
    """Remove what an agent left behind; return whether there was anything.  Raises HostError."""
    from overlay.host import leftovers
    from overlay.host.sysctl import key

    left = (remove or leftovers.remove)(path, interface)
    if left is None:
        return False
    parts = [f"put back {', '.join(map(key, left.settings))}"] if left.settings else []
    if left.routes:
        what = count(left.routes, "route or rule", "routes and rules")
        parts.append(f"removed {what} that kept packets from leaving unencrypted")
    if left.filters:
        parts.append("removed its rules from the packet filters")
    done = " and ".join(parts) or "nothing was left to restore"
    show(
        f"no agent runs for {interface}; cleaned up after one that was killed or ended with an error: {done}"
    )
    return True


def _lives(process: int) -> bool:
    """Return whether *process* runs; one that ended and waits for its parent does not count."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in {"Z", "X"}
