"""One immediate check of a server, reported step by step, in addition to those that the peers file schedules."""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING

import trio

from overlay.answers.services import unknown
from overlay.balancing.recording import RecordingDialer
from overlay.questions import refusal
from overlay.services import checks
from overlay.services.checks.dialer import NotAskedError
from overlay.services.health import Condition
from overlay.services.watching import DueCheck, asked_at
from overlay.wire.addresses import format_sockaddr

if TYPE_CHECKING:
    from overlay.answers.running import Running
    from overlay.questions import Answer, TellRows
    from peers.service import Server, Service

# Ours
SIGN_OF_LIFE = 3.0  # seconds without a step after which an empty piece shows that the check goes on
STEPS = 100  # that may wait to be sent; a check has fewer


async def answer(running: Running, request: Answer, tell_rows: TellRows) -> Answer:
    """Report the steps of all checks of the server ``name``, SERVICE/SERVER, one check after the other."""
    name, _, server_name = str(request.get("name")).partition("/")
    healths = running.balancing.watching.healths
    if name not in healths:
        if name in running.services:
            return refusal(f"this node is not a director of {name}: ask one of its directors")
        return unknown(name, list(healths), "service")
    service = healths[name].service
    server = next((each for each in service.entries if each.name == server_name), None)
    if server is None:
        return unknown(server_name, [each.name for each in service.entries], f"server of {name}")
    versions = {each.version for each in running.node().own.addresses}
    probes = [
        DueCheck((), check, service, server, address)
        for address in asked_at(service, versions)
        for check in service.checks_of(server)
    ]
    await tell_rows([{"step": _whereabouts(running, service, server), "seconds": 0.0}])
    verdicts = [await _check(running, probe, tell_rows) for probe in probes]
    health = healths.get(name)
    standing = None if health is None else health.standings.get(server.key)
    reason = None if health is None or standing is None else health.reason(server)
    return {
        "ok": True,
        "is_good": all(verdicts),
        "checks": len(probes),
        "state": None if standing is None else Condition(standing.condition).value,
        "reason": reason,
    }


async def _check(running: Running, probe: DueCheck, tell_rows: TellRows) -> bool:
    """Run one check and report its steps; return whether its result is good."""
    check, began = probe.check, trio.current_time()
    told, waiting = trio.open_memory_channel[dict[str, object]](STEPS)

    def tell(**row: object) -> None:
        with contextlib.suppress(trio.WouldBlock):  # the asking side reads slowly
            told.send_nowait(row | {"seconds": round(trio.current_time() - began, 6)})

    async def run() -> None:
        dialer = running.balancing.dialer_for(
            probe, functools.partial(RecordingDialer, lambda step: tell(step=step))
        )
        with told:
            try:
                result = await checks.run(check, dialer)
            except NotAskedError as error:
                tell(is_good=None, reason=str(error))
            else:
                verdicts.append(result.is_good)
                tell(is_good=result.is_good, reason=result.reason, weight=result.weight)
            finally:
                dialer.close()

    verdicts: list[bool] = []
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        try:
            await tell_rows(
                [
                    {
                        "check": check.kind,
                        "name": check.name,
                        "address": str(probe.address),
                        "port": probe.port,
                    }
                ]
            )
            while (row := await _next(waiting)) is not None:
                await tell_rows([row] if row else [])
        except (trio.BrokenResourceError, trio.TooSlowError) as error:
            failure = error  # the requester does not read; raised here, it would be in an exception group
            nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
    return verdicts == [True]


async def _next(waiting: trio.MemoryReceiveChannel[dict[str, object]]) -> dict[str, object] | None:
    """Return the next row to report; an empty one if that takes long, None at the end."""
    with trio.move_on_after(SIGN_OF_LIFE):
        try:
            return await waiting.receive()
        except trio.EndOfChannel:
            return None
    return {}


def _whereabouts(running: Running, service: Service, server: Server) -> str:
    """Return where the server is, and whether its tunnel works as far as that is known."""
    at = "" if server.address is None else f" at {server.address} behind it"
    at += "" if server.port is None else f", port {server.port}"
    remote = running.roster.by_name.get(server.peer)
    if remote is None:
        return f"{service.name}/{server.name} is this node itself{at}"
    tunnel = remote.encapsulation.name
    endpoint = "nowhere yet" if remote.endpoint is None else format_sockaddr(remote.endpoint)
    state = ""
    if remote.encapsulation.is_encrypted:
        state = " with a session" if remote.is_confirmed else " without a session"
    silent = ", which does not answer" if remote.is_silent else ""
    return (
        f"{service.name}/{server.name} is the peer {server.peer}{at}: {tunnel} to {endpoint}{state}{silent}"
    )
