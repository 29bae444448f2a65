"""Whether this node works, for monitoring: one sentence on why it does not, or nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.host import modules
from overlay.link.messages import OWN
from overlay.supervision.forwarder import ForwarderGoneError

if TYPE_CHECKING:
    from overlay.answers.running import Running

# Ours
PATIENCE = 2.0  # seconds within which the forwarder must answer


async def why_not_alive(running: Running) -> str | None:
    """Return why the node is not alive: its forwarder does not answer.  None if it is alive."""
    supervisor = running.supervisor
    if supervisor.trouble is not None:
        return supervisor.trouble
    try:
        answer = await supervisor.ping(OWN, PATIENCE)
    except ForwarderGoneError:
        return "the forwarder has ended, and another is about to start"
    if answer is None:
        return (
            f"the forwarder (process {supervisor.forwarder.pid}) did not answer within {PATIENCE:g} s; one that hangs "
            "is restarted within a minute"
        )
    return None


async def why_not_ready(running: Running) -> str | None:
    """Return why the node cannot take packets: it is not alive, or its interface is gone or down.  None if it can."""
    if (trouble := await why_not_alive(running)) is not None:
        return trouble
    interface = running.host.interface
    if modules.is_up(interface):
        return None
    return f"{interface} is down, or gone: run `ip link set {interface} up`"
