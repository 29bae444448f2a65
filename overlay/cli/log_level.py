"""``overlay log-level``: show the level of the agent's log, or set it while the agent runs."""

from __future__ import annotations

import click

from overlay.cli.agents import ask
from overlay.cli.options import LOG_LEVELS, interface_option, json_option
from overlay.cli.output import show, show_json


@click.command("log-level", epilog="Example: overlay log-level debug")
@click.argument(
    "level", type=click.Choice(LOG_LEVELS, case_sensitive=False), metavar="[LEVEL]", required=False
)
@interface_option
@json_option
@click.pass_context
def command(ctx: click.Context, level: str | None, interface: str, as_json: bool) -> None:
    """Show the level from which the agent writes its log, or set it to LEVEL.

    It applies to the agent and to what its forwarder reports, until the agent ends; `overlay up --log-level` sets it at
    the start.
    """
    answer = ask(ctx, interface, op="log_level", **({} if level is None else {"level": level}))
    now, before = answer.get("level"), answer.get("former_level")
    if as_json:
        show_json({"schema": answer.get("schema"), "level": now, "former_level": before})
    elif level is None:
        show(f"the log level of {interface} is {now}")
    elif now == before:
        show(f"the log level of {interface} was already {now}")
    else:
        show(f"the log level of {interface} is {now}; it was {before}")
