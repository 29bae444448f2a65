"""The web page: static files, and under /api/ the agent's answers as documents of ``--json``.  Read only: GET and HEAD.

The files and the JSON contain nothing that a browser would run: no script in the HTML, and no markup made from names
that a peer can choose.  CONTENT_SECURITY_POLICY makes the browser refuse everything from elsewhere, and all markup made
from text.

On a loopback address, every user of this host may read, but no page of another site, not even one whose name resolves
to this host (DNS rebinding), because the browser's Host header must name this host.  At any other address, only clients
with the token may read, which is compared in constant time.  The token is in the fragment of the URL that is printed at
the start, which browsers do not send; the page sends it in a header, so there is no cookie that other sites could use.
"""

from __future__ import annotations

import hmac
import json
import zlib
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from overlay import documents
from overlay.doors.hosts import hosts_of, name_of
from overlay.doors.http import Limits, Reply, refuse_method, say
from overlay.doors.readonly import NAME_SIZE, QUESTIONS, UnansweredError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from overlay.doors.http import Request
    from overlay.doors.readonly import Question
    from peers.listening import Listening

# Ours
FILES = Path(__file__).parent / "static"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
INDEX = "index.html"  # served as /
JSON = "application/json"
CONTENT_SECURITY_POLICY = "; ".join((
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self'",
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
    "require-trusted-types-for 'script'",
    "trusted-types 'none'",
))  # fmt: skip
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), clipboard-read=()",
    "Cache-Control": "no-store",
}
LIMITS = Limits(connections=64, idle=30.0, answer=30.0)
API = "/api/"

# For this long the same question is answered from memory, so that even many readers do not keep the agent busy.
FRESH = {"status": 2.0, "history": 5.0, "services": 2.0, "events": 2.0, "doctor": 30.0}  # seconds
SHARE = 0.1  # of the agent's time for one kind of question; slower answers are kept for longer
ASKED_AT_ONCE = 4  # questions
ASKED_PER_SECOND, BURST = (
    20.0,
    20,
)  # of all kinds together: every user of this host may be able to read the page
KEPT = 32  # answers
COMPRESSED_FROM = 4096  # bytes
LEVEL = 1  # of zlib: the rows of peers resemble each other

STATUSES = {
    "usage": 400,
    "unknown_peer": 404,
    "absent": 404,
    "own": 404,
    "no_agent": 503,
    "no_answer": 504,
    "busy": 503,
}
"""The HTTP status for each kind of refusal by the agent."""


@dataclass(slots=True)
class _Kept:
    """The answer to one question: its *body*, made at *at*, is valid until *until*."""

    turn: trio.Lock = field(default_factory=trio.Lock)  # one client asks, others wait for the answer
    status: int = 200
    body: bytes = b""
    packed: bytes | None = None  # *body* compressed, once a client has asked for that
    at: float = 0.0
    until: float = -1.0


class Page:
    """Answers requests with the questions that *ask* takes; clients need *token*, if it is not None."""

    def __init__(
        self,
        ask: Callable[[Question], Awaitable[tuple[Question, list[Any]]]],
        place: Listening,
        token: str | None,
        files: Mapping[str, tuple[str, bytes]] | None = None,
    ) -> None:
        self._ask, self._token = ask, token
        self._names = hosts_of(place)
        self._files = read_files() if files is None else files
        self._kept: OrderedDict[tuple[tuple[str, Any], ...], _Kept] = OrderedDict()
        self._room = trio.CapacityLimiter(ASKED_AT_ONCE)
        self._paced_until = 0.0  # when the questions so far would end at the permitted pace

    async def answer(self, request: Request) -> Reply:
        """Return the answer to *request*."""
        reply = self._refusal(request)
        if reply is None and request.path.startswith(API):
            reply = await self._tell(request)
        elif reply is None:
            content = self._files.get(request.path)
            reply = (
                say(404, "there is no such page") if content is None else Reply(200, content[1], content[0])
            )
        return Reply(reply.status, reply.body, reply.content_type, {**HEADERS, **reply.headers})

    def _refusal(self, request: Request) -> Reply | None:
        """Return the refusal of *request*; None if it should be answered."""
        is_api = request.path.startswith(API)
        if (refused := refuse_method(request, "GET", "HEAD")) is not None:
            return _as_failure(refused, "usage") if is_api else refused
        host = request.headers.get("host", "")
        if self._names is not None and name_of(host) not in self._names:
            refused = say(
                421,
                "this page is only for this host: open it at 127.0.0.1 or localhost, through `ssh -L` from elsewhere",
            )
            return _as_failure(refused, "foreign") if is_api else refused
        if not is_api:
            return None
        if request.headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}:
            return failure(403, "foreign", "other sites may not read this")
        if self._token is not None and not hmac.compare_digest(
            request.headers.get("authorization", "").encode(), f"Bearer {self._token}".encode()
        ):
            sentence = "open the address that `overlay web` printed when it started, which has the token"
            return failure(401, "token", sentence, {"WWW-Authenticate": "Bearer"})
        return None

    async def _tell(self, request: Request) -> Reply:
        try:
            question = read_question(request)
        except ValueError as error:
            return failure(400, "usage", str(error))
        if question is None:
            known = ", ".join(f"{API}{op}" for op in QUESTIONS)
            return failure(404, "failed", f"there is no {request.path}: ask for {known}")
        kept = self._keep(tuple(sorted(question.items())))
        async with kept.turn:
            if trio.current_time() >= kept.until:
                async with self._room:
                    await self._renew(kept, question)
        body, headers = kept.body, {"Age": str(int(trio.current_time() - kept.at)), "Vary": "Accept-Encoding"}
        if len(body) >= COMPRESSED_FROM and takes_gzip(request.headers.get("accept-encoding", "")):
            if kept.packed is None:
                kept.packed = zlib.compress(body, LEVEL, wbits=31)
            body, headers["Content-Encoding"] = kept.packed, "gzip"
        return Reply(kept.status, body, JSON, headers)

    def _keep(self, question: tuple[tuple[str, Any], ...]) -> _Kept:
        kept = self._kept.setdefault(question, _Kept())
        self._kept.move_to_end(question)
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return kept

    async def _renew(self, kept: _Kept, question: Question) -> None:
        slack = BURST / ASKED_PER_SECOND
        self._paced_until = max(self._paced_until, trio.current_time() - slack) + 1 / ASKED_PER_SECOND
        await trio.sleep_until(self._paced_until)
        began = trio.current_time()
        try:
            told = shape(question["op"], *await self._ask(question))
        except UnansweredError as error:
            reply = failure(STATUSES.get(error.kind, 502), error.kind, str(error))
            assert isinstance(reply.body, bytes)
            kept.status, kept.body = reply.status, reply.body
        else:
            kept.status, kept.body = 200, _encode(told)
        kept.packed, kept.at = None, trio.current_time()
        kept.until = kept.at + max(FRESH[question["op"]], (kept.at - began) / SHARE)


def read_files() -> dict[str, tuple[str, bytes]]:
    """Return the files of the page by path: media type and content."""
    found = {
        f"/{each.name}": (TYPES[each.suffix], each.read_bytes())
        for each in FILES.iterdir()
        if each.suffix in TYPES
    }
    return {"/": found[f"/{INDEX}"], **found}


def read_question(request: Request) -> Question | None:
    """Return the question to the agent in *request*; None for an unknown path.  Raises ValueError for wrong
    arguments.
    """
    op = request.path.removeprefix(API)
    if op not in QUESTIONS:
        return None
    question: Question = {"op": op}
    known = QUESTIONS[op]
    for name, text in request.query:
        kind = known.get(name)
        if kind is None:
            takes = f"it accepts {', '.join(known)}" if known else "leave it out"
            raise ValueError(f"{request.path} does not accept {name!r}: {takes}")
        if name in question:
            raise ValueError(f"{name} is here more than once: write one")
        if kind is int and not (text.isascii() and text.isdigit() and len(text) <= 15):
            raise ValueError(f"{name} must be a whole number from 0 on, of at most 15 digits")
        if len(text) > NAME_SIZE:
            raise ValueError(f"{name} must have at most {NAME_SIZE} characters")
        question[name] = kind(text)
    return question


def takes_gzip(accepted: str) -> bool:
    """Return whether a header Accept-Encoding names gzip, without refusing it by a weight of 0 (RFC 9110 section
    12.5.3).
    """
    for each in accepted.lower().replace(" ", "").split(","):
        coding, _, weight = each.partition(";")
        if coding == "gzip":
            return weight.rstrip("0.") != "q="
    return False


def shape(op: str, answer: Question, rows: list[Any]) -> dict[str, Any]:
    """Return the document of an *answer* of the agent, including the *rows* that came before it.

    Raises UnansweredError if it has another form, as of an agent that was started before an upgrade.
    """
    inner = answer.get(op)
    match op:
        case "status" if isinstance(inner, dict):
            return documents.tell_status({**inner, "peers": rows})
        case "history" if isinstance(inner, dict):
            return documents.tell_history(inner, rows)
        case "doctor" if isinstance(inner, dict) and isinstance(inner.get("findings"), list):
            about: dict[str, Any] = {
                name: inner.get(name) for name in ("interface", "node", "packet_path", "peers")
            }
            return documents.tell_examination(**about, findings=[*inner["findings"], *rows])
        case "services" if all(name in answer for name in documents.OF_SERVICES):
            return documents.tell_services(answer)
        case "events":
            return documents.tell_events(answer, rows)
    raise UnansweredError("failed", "the agent is of another version than this page: start it again")


def failure(status: int, kind: str, sentence: str, headers: Mapping[str, str] | None = None) -> Reply:
    """Return the document that says why there is no answer."""
    return Reply(status, _encode(documents.tell_failure(kind, sentence)), JSON, headers or {})


def _as_failure(reply: Reply, kind: str) -> Reply:
    """Return *reply*, a sentence in plain text, as the document that says why there is no answer."""
    assert isinstance(reply.body, bytes)
    return failure(reply.status, kind, reply.body.decode().rstrip("\n"), reply.headers)


def refuse(status: int, sentence: str) -> Reply:
    """Return the answer to a malformed HTTP request."""
    reply = say(status, sentence)
    return Reply(reply.status, reply.body, reply.content_type, HEADERS)


def _encode(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
