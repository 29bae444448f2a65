"""``overlay services check SERVICE/SERVER``: one check now, step by step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from overlay.cli.agents import ask_in_pieces
from overlay.cli.exits import Failure
from overlay.cli.options import interface_option, json_option
from overlay.cli.output import show, show_json
from overlay.documents import told

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

VERDICTS = {True: "good", False: "bad", None: "not asked"}


@click.command("check", epilog="Example: overlay services check web/web1")
@click.argument("server", metavar="SERVICE/SERVER")
@interface_option
@json_option
@click.pass_context
def command(ctx: click.Context, server: str, interface: str, as_json: bool) -> None:
    """Check a server now, step by step, with all its checks.

    Checks take the usual path: through the tunnel, to the virtual address, at this server.  Their results change
    nothing: only the regular checks decide whether the server is up.

    The exit code is 0 if all checks are good, otherwise 1.
    """
    checks: list[dict[str, Any]] = []
    steps: list[dict[str, Any]] = []

    def take(rows: Iterable[dict[str, Any]]) -> None:
        for row in rows:
            if "check" in row:
                checks.append(row | {"steps": []})
            elif "step" in row:
                (checks[-1]["steps"] if checks else steps).append(row)
            else:
                checks[-1].update(row)
            if not as_json:
                show(_line(row))

    answer = ask_in_pieces(ctx, interface, take, op="check_server", name=server)
    if as_json:
        show_json(
            told(
                {
                    "server": server,
                    "is_good": answer["is_good"],
                    "steps": steps,
                    "checks": checks,
                    "state": answer["state"],
                    "reason": answer["reason"],
                }
            )
        )
    else:
        show(_summary(server, answer))
    if not answer["is_good"]:
        raise Failure(f"{server} did not pass")


def _line(row: Mapping[str, Any]) -> str:
    if "check" in row:
        name = f" {row['name']}" if row["name"] else ""
        address = f"[{row['address']}]" if row["port"] and ":" in row["address"] else row["address"]
        port = f":{row['port']}" if row["port"] else ""
        return f"check{name} of kind {row['check']} at {address}{port}"
    time = f"  {row['seconds'] * 1000:8.1f} ms  "
    if "step" in row:
        return f"{time}{row['step']}"
    weight = "" if row.get("weight") is None else f", weight {row['weight']}"
    return f"{time}{VERDICTS[row['is_good']]}: {row['reason']}{weight}"


def _summary(server: str, answer: Mapping[str, Any]) -> str:
    if answer["state"] is None:
        return f"{server} is no longer in the peers file"
    reason = f" ({answer['reason']})" if answer["reason"] else ""
    if not answer["checks"]:
        return f"{server} has no checks, so it counts as up; it is {answer['state']}{reason}"
    return f"by its regular checks, {server} is {answer['state']}{reason}"
