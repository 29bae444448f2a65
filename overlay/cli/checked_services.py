"""The services of a peers file, as ``overlay check`` shows them, and the commands that servers without an agent
need.
"""

# ruff: noqa: PLC0415  see overlay/cli/__init__.py

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from overlay.cli.output import format_some, format_table

if TYPE_CHECKING:
    from peers.service import Ports, Server, Service
    from peers.table import Table

# Ours
SHOWN = 6  # servers, ports or names in one cell


def render_services(table: Table) -> list[str]:
    """Return the lines on the services of *table*; none if it has no services."""
    if not table.services:
        return []
    rows = [
        (
            service.name,
            format_some([str(address) for address in service.addresses], SHOWN),
            format_some([show_ports(ports) for ports in service.ports], SHOWN) or "every",
            ", ".join(service.protocols),
            service.scheduler,
            "all" if service.directors is None else format_some(service.directors, SHOWN),
            format_some([_show_server(server) for server in service.servers], SHOWN) or "-",
        )
        for service in table.services.values()
    ]
    header = ("SERVICE", "ADDRESS", "PORTS", "PROTOCOL", "SCHEDULER", "DIRECTORS", "SERVERS")
    return ["", format_table(header, rows), *_render_commands(table)]


def _render_commands(table: Table) -> list[str]:
    from overlay.diagnosis.plain_servers import commands_by_peer

    lines: list[str] = []
    for name, commands in commands_by_peer(table).items():
        lines += ["", f"{name} runs no agent. To be a server it needs, as root:", ""]
        for why, alike in groupby(commands, key=lambda each: each.why):
            lines += [f"  # {why}", *(f"  {each.command}" for each in alike)]
    return lines


def describe_services(table: Table) -> dict[str, object]:
    """Return the services of *table*, and the commands for servers without an agent, for JSON."""
    from overlay.diagnosis.plain_servers import commands_by_peer
    from peers.services.clients import places_of

    return {
        "services": [
            {
                "name": service.name,
                "addresses": [str(address) for address in service.addresses],
                "ports": [show_ports(ports) for ports in service.ports],
                "protocols": list(service.protocols),
                "scheduler": service.scheduler,
                "directors": "all" if service.directors is None else list(service.directors),
                "servers": [_describe_server(service, server) for server in service.servers],
                "sorry": None if service.sorry is None else _describe_server(service, service.sorry),
                "quorum": service.quorum,
                "reply": service.reply,
                "vrrp": None if service.vrrp is None else service.vrrp.router,
                "clients": [
                    {"place": place.name, "peers": list(place.peers), "works": place.works, "way": place.way}
                    for place in places_of(service, table.peers)
                ],
            }
            for service in table.services.values()
        ],
        "server_commands": {
            name: [{"command": each.command, "why": each.why} for each in commands]
            for name, commands in commands_by_peer(table).items()
        },
    }


def show_ports(ports: Ports) -> str:
    """Return *ports* in the form of the peers file."""
    return str(ports[0]) if ports[0] == ports[1] else f"{ports[0]}-{ports[1]}"


def _show_server(server: Server) -> str:
    return server.name if server.weight == 1 else f"{server.name} ({server.weight})"


def _describe_server(service: Service, server: Server) -> dict[str, object]:
    return {
        "name": server.name,
        "peer": server.peer,
        "address": None if server.address is None else str(server.address),
        "port": server.port,
        "weight": server.weight,
        "checks": [check.name or check.kind for check in service.checks_of(server)],
    }
