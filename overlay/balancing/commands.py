"""Commands of the peers file that run when a server goes up or down, or a quorum is gained or lost."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

import trio

from overlay.services.checks.programs import describe_end
from overlay.services.checks.script import describe_failure, run_as_nobody
from overlay.services.health import QuorumChanged

if TYPE_CHECKING:
    from overlay.services.health import Event, ServerChanged
    from peers.service import Service

# Ours
PATIENCE = 60.0  # seconds for a command of the peers file
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

log = logging.getLogger("overlay")


async def run(service: Service, event: Event) -> None:
    """Run the command that *service* has for *event*, if any, with what happened as JSON on its standard input."""
    if isinstance(event, QuorumChanged):
        command = service.quorum_up_command if event.has_quorum else service.quorum_down_command
        told: dict[str, object] = {"has_quorum": event.has_quorum, "live": event.live}
    elif event.version is not None:
        return  # the server is up by the other IP version
    else:
        command = service.up_command if event.is_up else service.down_command
        told = _tell_server(event)
    if not command:
        return
    text = json.dumps({"service": service.name, **told}).encode() + b"\n"
    status = None
    try:
        with trio.move_on_after(PATIENCE):
            status = await run_as_nobody(command, {"PATH": PATH}, text)
    except (OSError, LookupError) as error:
        _report(service, command, describe_failure(error, command))
        return
    if status is None:
        _report(service, command, f"it was ended after {PATIENCE:g} s")
    elif status:
        _report(service, command, f"it {describe_end(status)}")


def _report(service: Service, command: tuple[str, ...], why: str) -> None:
    log.error("command failed service=%s command=%s: %s", service.name, command[0], why)


def _tell_server(event: ServerChanged) -> dict[str, object]:
    server = event.server
    return {"server": server.name, "peer": server.peer, "is_up": event.is_up, "reason": event.reason}
