"""The HTTP interface of a Docker plugin: POST with JSON over a unix socket."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeAlias

from overlay.doors import http

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import trio

# Specification: libnetwork's docs/remote.md, Docker's plugin API
CONTENT_TYPE = "application/vnd.docker.plugins.v1.2+json"

# Ours
LIMITS = http.Limits(
    connections=64,  # dockerd has a few
    body_size=4 * 1024 * 1024,  # all 65535 ports of a container take two thirds of it
    idle=120.0,  # dockerd closes connections that are idle for 30
)

Answer: TypeAlias = "Callable[[str, dict[str, Any]], Awaitable[tuple[int, dict[str, Any]]]]"
"""Takes the path of a call and its body; returns the status and the body of the answer."""


async def serve(listener: trio.SocketListener, answer: Answer, limits: http.Limits = LIMITS) -> None:
    """Answer requests until cancelled."""

    async def ask(request: http.Request) -> http.Reply:
        return _reply(*await _ask(request, answer))

    await http.serve(listener, ask, limits, _refuse, "questions of Docker")


async def _ask(request: http.Request, answer: Answer) -> tuple[int, dict[str, Any]]:
    if request.method != "POST":
        return 405, {"Err": "a plugin is called with POST"}
    try:
        body = json.loads(request.body) if request.body.strip() else {}
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        return 400, {"Err": "the body is not a JSON object"}
    return await answer(request.target, body)


def _reply(status: int, body: dict[str, Any]) -> http.Reply:
    return http.Reply(status, json.dumps(body).encode(), CONTENT_TYPE)


def _refuse(status: int, _sentence: str) -> http.Reply:
    return _reply(status, {"Err": "this is not an HTTP request as Docker makes it"})
