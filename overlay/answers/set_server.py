"""Sets a server by hand: drains, disables or enables it, or gives it another weight."""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.answers.services import tell_server, unknown
from overlay.questions import refusal
from overlay.services.health import ByHand
from peers.service import MOST_WEIGHT

if TYPE_CHECKING:
    from overlay.answers.running import Running
    from overlay.questions import Answer, TellRows

SETTINGS = ("drain", "disable", "enable", "weight")


async def answer(running: Running, request: Answer, _tell_rows: TellRows) -> Answer:
    """Apply the setting ``what`` to the server ``name``, SERVICE/SERVER, here and at the other directors.

    Directors that did not confirm it are ``unconfirmed``; those that no message can reach through the tunnel are
    ``deaf``.
    """
    asked, what, weight = request.get("name"), request.get("what"), request.get("weight")
    name, _, server_name = str(asked).partition("/")
    health = running.balancing.watching.healths.get(name)
    if health is None:
        if name in running.services:
            directors = " or ".join(running.services[name].directors or ())
            return refusal(f"this node is not a director of {name}: ask {directors}")
        return unknown(name, list(running.balancing.watching.healths), "service")
    server = next((each for each in health.service.entries if each.name == server_name), None)
    if server is None:
        return unknown(server_name, [each.name for each in health.service.entries], f"server of {name}")
    if what not in SETTINGS or (
        what == "weight" and not (type(weight) is int and 0 <= weight <= MOST_WEIGHT)
    ):
        return refusal(
            f"a server can be drained, enabled, disabled, or given a weight from 0 to {MOST_WEIGHT}"
        )
    before = health.by_hand.get(server.key, ByHand())
    shared = running.balancing.shared
    unconfirmed = await shared.set_by_hand(health.service, server, _set(before, what, weight))
    if name not in running.balancing.watching.healths or server not in health.service.entries:
        return refusal(f"the peers file changed {asked} meanwhile: look at `overlay services {name}`")
    return {
        "ok": True,
        "server": tell_server(health, server),
        "unconfirmed": unconfirmed,
        "deaf": list(shared.sharing.deaf(health.service)),
    }


def _set(before: ByHand, what: str, weight: int | None) -> ByHand:
    """Return the settings that follow *before*."""
    match what:
        case "drain":
            return ByHand(before.weight, is_drained=True)
        case "disable":
            return ByHand(before.weight, is_disabled=True)
        case "weight":
            return ByHand(weight, before.is_drained, before.is_disabled)
    return ByHand()
