"""Whether containers can be attached now, and reach others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.errors import HostError
from overlay.host import clock
from overlay.provisioning.attaching import NoSubnetError
from overlay.questions import refusal
from overlay.troubles.unresolved import UNRESOLVED

if TYPE_CHECKING:
    from overlay.answers.running import Running
    from overlay.questions import Answer, TellRows

# Ours
CUT_OFF = frozenset({"unreachable", "unconfirmed", "silent", UNRESOLVED})
"""The states of a peer that was tried and did not answer.  A peer that was not tried yet may answer."""


async def answer(running: Running, _request: Answer, _tell_rows: TellRows) -> Answer:
    """Return the ``state``: ``ready``, ``no_subnet``, or ``cut_off`` while no peer answers; and the ``reason``."""
    try:
        offered = await running.containers.offer()
    except NoSubnetError as error:
        return {"ok": True, "state": "no_subnet", "reason": str(error)}
    except HostError as error:
        return refusal(str(error))
    now, remotes = clock.now(), list(running.roster.by_number.values())
    if remotes and all(running.row(remote, None, now)["state"] in CUT_OFF for remote in remotes):
        names = ", ".join(sorted(remote.peer.name for remote in remotes)[:3])
        more = f" and {len(remotes) - 3} more" if len(remotes) > 3 else ""
        reason = f"no peer answers ({names}{more}): `overlay status` says why"
        return {"ok": True, "state": "cut_off", "reason": reason}
    return {
        "ok": True,
        "state": "ready",
        "reason": "",
        "subnets": [str(subnet) for subnet in offered.subnets],
        "mtu": running.host.mtu,
    }
