"""Programs of the peers file, for checks and for events of services, that this host cannot run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from overlay.diagnosis.finding import Finding
from overlay.diagnosis.services import directed
from overlay.services.checks.programs import find_obstacle
from overlay.services.checks.script import unprivileged_identity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from overlay.diagnosis.facts import Facts
    from peers.service import Service

# Specification: the keys of a service that name a program
COMMANDS = ("up_command", "down_command", "quorum_up_command", "quorum_down_command")


def check_programs(facts: Facts) -> Iterator[Finding]:
    """Yield a finding for each program that a service balanced here runs, and that cannot be started here."""
    places: dict[str, str] = {}
    for service in directed(facts):
        for place, program in _programs(service):
            places.setdefault(program, place)
    try:
        identity = unprivileged_identity() if places else (None, None)
    except LookupError as error:
        yield Finding("program", f"programs of services cannot be started: {error.args[0]}")
        return
    for program, place in places.items():
        obstacle = find_obstacle(Path(program), identity)
        if obstacle is not None:
            problem = f"{program}, which {place} names, cannot be started: {obstacle.problem}"
            yield Finding("program", problem, obstacle.remedy)


def _programs(service: Service) -> Iterator[tuple[str, str]]:
    """Yield the programs of *service*, each with the place in the peers file that names it."""
    for key in COMMANDS:
        if command := getattr(service, key):
            yield f"{key} of services.{service.name}", command[0]
    for checks in (service.checks, *(server.checks or () for server in service.entries)):
        for check in checks:
            if check.command:
                where = f"checks.{check.name}" if check.name else f"a check of services.{service.name}"
                yield f"command of {where}", check.command[0]
