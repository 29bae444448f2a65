"""The page without a browser: who may read it, its JSON, and what it costs the agent."""

from __future__ import annotations

import gzip
import json
import re

import pytest
import trio
import trio.testing

from overlay.doors.http import Request
from overlay.doors.page import ASKED_PER_SECOND, BURST, FILES, KEPT, TYPES, Page, read_files, refuse
from overlay.doors.readonly import QUESTIONS, UnansweredError
from overlay.reasons import REASONS
from peers.listening import parse_place

LOCAL = parse_place("127.0.0.1:8051")
REMOTE = parse_place("192.0.2.1:8051")
TOKEN = "a-token-that-nobody-guesses"


ROW = {"name": "tokyo", "path_mtu": 1400, "severity": "error"}


class Reader:
    """An agent that takes *seconds* for each answer."""

    def __init__(self):
        self.asked, self.error, self.seconds, self.rows = [], None, 0.0, [ROW]

    async def ask(self, question):
        self.asked.append(question)
        await trio.sleep(self.seconds)
        if self.error is not None:
            raise self.error
        answer = {
            "status": {"node": "paris", "mtu": 1420, "drops": {"no_peer": 2}},
            "history": {"times_seconds": [1.0]},
            "doctor": {
                "interface": "overlay0",
                "node": "paris",
                "packet_path": "compiled",
                "peers": 1,
                "drops": {},
                "findings": [{"severity": "notice"}],
            },
        }
        op = question["op"]
        told = {
            "services": {"services": [], "notes": [], "rates_over_s": 10.0, "drops": {}, "is_complete": True},
            "events": {"run": "a", "last": 3, "is_complete": True},
        }.get(op) or {op: answer[op]}
        return {"ok": True, **told}, self.rows


@pytest.fixture
def reader():
    return Reader()


def get(target, method="GET", **headers):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Request(method, target, {"host": "127.0.0.1:8051", **named}, b"")


def answers(reader, *requests, place=LOCAL, token=None, pause=0.0):
    """Return the answers to *requests*, one after the other with a *pause* between two."""

    async def main():
        page, told = Page(reader.ask, place, token), []
        for request in requests:
            told.append(await page.answer(request))
            await trio.sleep(pause)
        return told

    return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0), strict_exception_groups=True)


def answer(reader, request, **values):
    (reply,) = answers(reader, request, **values)
    return reply


# Files


@pytest.mark.parametrize("path", ["/", "/page.js", "/page.css", "/icon.svg"])
def test_files_are_served_as_what_they_are_and_nothing_from_elsewhere_may_run(reader, path):
    reply = answer(reader, get(path))

    assert reply.status == 200
    assert reply.content_type == TYPES[path[path.rfind(".") :] if "." in path else ".html"]
    policy = reply.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "require-trusted-types-for 'script'" in policy
    assert "unsafe" not in policy
    assert reply.headers["X-Content-Type-Options"] == "nosniff"


def test_files_name_nothing_from_elsewhere_and_hold_no_script_or_style_inside_markup():
    text = "\n".join(content.decode() for _, content in read_files().values())
    html = (FILES / "index.html").read_text()

    assert set(re.findall(r"https?://[\w./]+", text)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"@import|url\(|//[\w-]+\.\w+/", text)
    assert not re.search(r"<script(?![^>]*src=)|<style|\sstyle=|\son\w+=", html)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|Function\(", text)


@pytest.mark.parametrize(
    "path", ["/page.py", "/../page.py", "/static/page.js", "/%2e%2e/x", "//", "/index.html/"]
)
def test_there_are_no_other_files(reader, path):
    assert answer(reader, get(path)).status == 404


# Who may read


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
@pytest.mark.parametrize("target", ["/", "/api/status"])
def test_nothing_but_reading_is_taken(reader, method, target):
    reply = answer(reader, get(target, method))

    assert (reply.status, reply.headers["Allow"]) == (405, "GET, HEAD")
    if target != "/":
        error = {"kind": "usage", "message": "/api/status allows GET and HEAD"}
        assert json.loads(reply.body) == {"schema": 1, "error": error}
    assert reader.asked == []


@pytest.mark.parametrize("host", ["127.0.0.1:8051", "localhost:9000", "LOCALHOST", "[::1]:8051", "127.0.0.1"])
def test_this_host_may_be_named_in_all_its_ways_also_through_a_forwarded_port(reader, host):
    assert answer(reader, get("/api/status", host=host)).status == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example:8051", "127.0.0.1.evil.example", "localhost.evil.example", "", "192.0.2.1", "localhost:x"],
)
@pytest.mark.parametrize("target", ["/", "/api/status"])
def test_a_name_that_was_made_to_resolve_to_this_host_reads_nothing(reader, host, target):
    reply = answer(reader, get(target, host=host))

    assert reply.status == 421
    if target != "/":
        assert json.loads(reply.body)["error"]["kind"] == "foreign"
    assert reader.asked == []


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_another_site_reads_nothing(reader, site):
    assert answer(reader, get("/api/status", sec_fetch_site=site)).status == 403
    assert reader.asked == []


@pytest.mark.parametrize(
    "header", [{}, {"authorization": ""}, {"authorization": TOKEN}, {"authorization": f"Bearer {TOKEN}x"},
               {"authorization": "Bearer "}, {"authorization": f"Basic {TOKEN}"}, {"cookie": f"token={TOKEN}"}]
)  # fmt: skip
def test_without_the_token_nothing_is_told_but_the_page_that_asks_for_it(reader, header):
    page, told = answers(reader, get("/", **header), get("/api/status", **header), place=REMOTE, token=TOKEN)

    assert (page.status, told.status) == (200, 401)
    assert json.loads(told.body)["error"]["kind"] == "token"
    assert reader.asked == []


def test_who_has_the_token_is_told_at_any_name(reader):
    request = get("/api/status", host="paris.example:8051", authorization=f"Bearer {TOKEN}")

    assert answer(reader, request, place=REMOTE, token=TOKEN).status == 200


# The JSON


@pytest.mark.parametrize(
    ("target", "question", "told"),
    [
        (
            "/api/status",
            {"op": "status"},
            {
                "node": "paris",
                "mtu_bytes": 1420,
                "drops": dict.fromkeys(REASONS, 0) | {"no_peer": 2},
                "peers": [{"name": "tokyo", "path_mtu_bytes": 1400, "severity": "error"}],
            },
        ),
        (
            "/api/history?name=tokyo&samples=60",
            {"op": "history", "name": "tokyo", "samples": 60},
            {"times_seconds": [1.0], "peers": [ROW]},
        ),
        (
            "/api/services",
            {"op": "services"},
            {"services": [], "notes": [], "rates_over_seconds": 10.0, "drops": {}},
        ),
        (
            "/api/events?since=2",
            {"op": "events", "since": 2},
            {"run": "a", "last": 3, "is_complete": True, "events": [ROW]},
        ),
        (
            "/api/doctor",
            {"op": "doctor"},
            {
                "interface": "overlay0",
                "node": "paris",
                "is_running": True,
                "packet_path": "compiled",
                "peers": 1,
                "asked": 0,
                "answered": 0,
                "findings": [ROW, {"severity": "notice"}],
            },
        ),
    ],
)
def test_each_question_has_its_answer_as_json_with_a_schema_number(reader, target, question, told):
    reply = answer(reader, get(target))

    assert reader.asked == [question]
    assert json.loads(reply.body) == {"schema": 1, **told}
    assert (reply.content_type, reply.headers["Cache-Control"]) == ("application/json", "no-store")


QUESTIONS_THERE_ARE = ": ask for /api/status, /api/history, /api/services, /api/events, /api/doctor"


@pytest.mark.parametrize(
    ("target", "status", "text"),
    [
        ("/api/down", 404, f"there is no /api/down{QUESTIONS_THERE_ARE}"),
        ("/api/", 404, f"there is no /api/{QUESTIONS_THERE_ARE}"),
        ("/api/status?name=tokyo", 400, "/api/status does not accept 'name': leave it out"),
        ("/api/history?samples=x", 400, "samples must be a whole number from 0 on, of at most 15 digits"),
        ("/api/history?samples=-1", 400, "samples must be a whole number from 0 on, of at most 15 digits"),
        (
            "/api/history?samples=9999999999999999",
            400,
            "samples must be a whole number from 0 on, of at most 15 digits",
        ),
        ("/api/history?name=" + "x" * 300, 400, "name must have at most 253 characters"),
        ("/api/events?op=down", 400, "/api/events does not accept 'op': it accepts name, since, limit"),
        ("/api/events?limit=1&limit=2", 400, "limit is here more than once: write one"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_json(reader, target, status, text):
    reply = answer(reader, get(target))

    assert reply.status == status
    kind = "usage" if status == 400 else "failed"  # as the agent reports refusals
    assert json.loads(reply.body) == {"schema": 1, "error": {"kind": kind, "message": text}}
    assert reader.asked == []


@pytest.mark.parametrize(
    ("kind", "status"),
    [("no_agent", 503), ("no_answer", 504), ("unknown_peer", 404), ("usage", 400), ("failed", 502)],
)
def test_what_the_agent_refuses_is_told_in_json(reader, kind, status):
    reader.error = UnansweredError(kind, "so it is")

    reply = answer(reader, get("/api/doctor"))

    assert reply.status == status
    assert json.loads(reply.body)["error"] == {"kind": kind, "message": "so it is"}


@pytest.mark.parametrize(
    ("op", "told"),
    [
        ("status", {}),
        ("status", {"status": []}),
        ("history", {}),
        ("services", {}),
        ("services", {"services": []}),
        ("doctor", {"doctor": {}}),
    ],
)
def test_an_agent_of_another_version_is_said_and_ends_nothing(op, told):
    async def ask(_):
        await trio.sleep(0)
        return {"ok": True, **told}, []

    async def main():
        return await Page(ask, LOCAL, None).answer(get(f"/api/{op}"))

    reply = trio.run(main, strict_exception_groups=True)

    assert reply.status == 502
    assert "another version" in json.loads(reply.body)["error"]["message"]


def test_large_answers_are_compressed_for_who_takes_that(reader):
    reader.rows = [{"name": f"peer{number}", "state": "up"} for number in range(500)]

    plain, refused, packed = answers(
        reader,
        get("/api/status"),
        *(get("/api/status", accept_encoding=each) for each in ("br, gzip;q=0", "br, gzip;q=0.5")),
    )

    assert gzip.decompress(packed.body) == plain.body
    assert packed.headers["Content-Encoding"] == "gzip"
    assert all("Content-Encoding" not in each.headers for each in (plain, refused))
    assert len(packed.body) < len(plain.body) / 5


def test_garbage_is_refused_with_the_same_headers():
    assert "Content-Security-Policy" in refuse(400, "that is not HTTP").headers


# What it costs the agent


def test_many_readers_ask_the_agent_once_and_are_told_how_old_the_answer_is(reader):
    replies = answers(reader, *[get("/api/status")] * 4, pause=0.6)

    assert len(reader.asked) == 1
    assert [reply.headers["Age"] for reply in replies] == ["0", "0", "1", "1"]


def test_readers_at_once_wait_for_one_answer(reader):
    reader.seconds = 0.1

    async def main():
        page = Page(reader.ask, LOCAL, None)
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(page.answer, get("/api/status"))

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0), strict_exception_groups=True)

    assert len(reader.asked) == 1


def test_an_agent_that_takes_long_is_asked_less_often(reader):
    reader.seconds = 2.0

    answers(reader, *[get("/api/status")] * 10, pause=3.0)

    assert len(reader.asked) == 2  # each is valid for ten times as long as it took


def test_questions_of_all_kinds_are_paced_and_few_answers_are_kept(reader):
    requests = [get(f"/api/history?name=peer{number}") for number in range(BURST * 5)]

    async def main():
        page, began = Page(reader.ask, LOCAL, None), trio.current_time()
        for request in requests:
            await page.answer(request)
        return trio.current_time() - began, len(page._kept)

    took, kept = trio.run(
        main, clock=trio.testing.MockClock(autojump_threshold=0), strict_exception_groups=True
    )

    assert took >= (len(requests) - BURST) / ASKED_PER_SECOND
    assert kept <= KEPT


def test_every_question_has_its_time(reader):
    for op in QUESTIONS:
        assert answer(reader, get(f"/api/{op}")).status == 200
