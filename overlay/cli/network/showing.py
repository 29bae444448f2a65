"""``overlay network show``: show the contents of a network in etcd."""

# ruff: noqa: PLC0415  see overlay/cli/__init__.py

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from overlay.cli.network.common import network_option, open_network
from overlay.cli.options import json_option
from overlay.cli.output import format_table, show, show_json, warn
from overlay.documents import SCHEMA
from overlay.numbers import count

if TYPE_CHECKING:
    from peers.stores import Location


@click.command("show", epilog="Example: overlay network show --peers etcd://10.0.0.5:2379/office")
@network_option
@json_option
def command(location: Location, as_json: bool) -> None:
    """Show the nodes of a network in etcd, its reservations, and which nodes are left out and why."""
    from peers.stores.etcd.administration import describe

    network = open_network(location)
    known = network.read()
    found = describe(known)
    if as_json:
        show_json({"schema": SCHEMA, **found})
        return
    show(_render(network.keys.name, found))
    for sentence in (*known.remarks, *map(str, known.members.left_out)):
        warn(sentence)


def _render(name: str, found: dict[str, Any]) -> str:
    leases = found["leases"]
    lengths = ", ".join(
        f"/{length} of {pool}" for pool, length in zip(leases["prefix"], leases["length"], strict=True)
    )
    lines = [
        f"network {name}: {', '.join(found['prefixes'])}, {count(len(found['peers']), 'peer')} in the document",
        f"subnets {lengths}: {len(found['nodes'])} of {leases['subnets']} in use, kept for {leases['seconds']} s",
    ]
    if found["admin_key"] is not None:
        lines.append(
            f"signed by {found['admin_key']}: {count(len(found['vouched']), 'host')} enrolled, "
            f"{count(found['tokens'], 'join token')} unused"
        )
    rows = [
        (
            node["name"],
            ", ".join(node["subnets"]),
            ", ".join(node["endpoints"]) or "-",
            node["public_key"],
            "" if node["takes_part"] else "left out",
        )
        for node in found["nodes"]
    ]
    if rows:
        lines += ["", format_table(("NODE", "SUBNETS", "ENDPOINT", "PUBLIC KEY", ""), rows)]
    lines += _describe_other_keys(found)
    if found["reserved"]:
        kept = [(each["subnet"], each["name"] or each["public_key"]) for each in found["reserved"]]
        lines += ["", format_table(("RESERVED", "FOR"), kept)]
    return "\n".join(lines)


def _describe_other_keys(found: dict[str, Any]) -> list[str]:
    """Return a line for each node whose key is being replaced: it has the two keys, but not which of them is newer."""
    lines = []
    for node in found["nodes"]:
        other = node["other_public_key"]
        if other is None:
            continue
        is_missing = found["admin_key"] is not None and other not in found["vouched"]
        lines.append(
            f"{node['name']} is replacing its key: it also answers to {other}, its next key or its former one"
            f"{', which is not enrolled' if is_missing else ''}"
        )
    return ["", *lines] if lines else []
