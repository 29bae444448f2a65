"""``overlay cni list``."""

from __future__ import annotations

from typing import Any

import click

from overlay.cli.agents import ask_in_pieces
from overlay.cli.options import interface_option, json_option
from overlay.cli.output import format_table, show, show_json
from overlay.documents import told

# Ours
ID_SIZE = 12  # characters of a container's id, as runtimes show it
COLUMNS = ("CONTAINER", "INTERFACE", "NETWORK", "ADDRESSES", "DEVICE")


@click.command("list")
@json_option
@interface_option
@click.pass_context
def command(ctx: click.Context, as_json: bool, interface: str) -> None:
    """List the containers that an agent has attached."""
    rows: list[dict[str, Any]] = []
    ask_in_pieces(ctx, interface, rows.extend, op="attachments")
    if as_json:
        show_json(told({"attachments": rows}))
    elif rows:
        show(format_table(COLUMNS, sorted(map(_cells, rows))))
    else:
        show(f"no containers are attached to the overlay of {interface}")


def _cells(row: dict[str, Any]) -> list[str]:
    addresses = row.get("addresses")
    return [
        str(row.get("container"))[:ID_SIZE],
        str(row.get("interface")),
        str(row.get("network")),
        " ".join(map(str, addresses if isinstance(addresses, list) else ())),
        str(row.get("device")),
    ]
