"""Checks as one exchange: input, in whatever pieces, has the same result as with a check in a task of its own."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from overlay.services import checks
from overlay.services.checking import Result
from overlay.services.checks import http
from overlay.services.checks.exchange import Exchange
from peers.service import Check
from tests.hypothesis_profiles import examples
from tests.overlay.services.checks.conftest import Loopback

NOTHING = re.compile(rb"(?!)")
LINES = [
    b"HTTP/1.1 200 OK", b"HTTP/1.0 404", b"HTTP/1.1 503 ", b"HTTP/1.1 100 Continue", b"HTTP/2 200", b"HTTP/1.1 2000 OK",
    b"Server: x", b"X:", b" folded", b"no colon", b": no name", b"Content-Length: 5", b"Transfer-Encoding: chunked",
    b"Bad Name: x", b"X: \x01", b"X: \xe4", b"",
]  # fmt: skip


def told(answer, pieces):
    """Return what a check for the status alone finds in *answer*, cut at *pieces*;
    then the server ends the connection.
    """
    exchange = checks.as_exchange(Check("http"), Loopback(80))
    ends = [0, *sorted({min(len(answer), each) for each in pieces}), len(answer)]
    for first, end in itertools.pairwise(ends):
        if first < end and (result := exchange.receive(answer[first:end])) is not None:
            return result
    return exchange.receive(b"")


@examples(400)
@given(
    st.lists(st.sampled_from(LINES), max_size=6),
    st.sampled_from([b"\r\n", b"\n"]),
    st.lists(st.integers(0, 120), max_size=3),
)
@example([b"HTTP/1.1 200 OK", b"Server: x", b""], b"\r\n", [])
@example([b"HTTP/1.1 100 Continue", b"", b"HTTP/1.0 404", b""], b"\r\n", [])
def test_a_plain_head_is_read_as_h11_reads_it(lines, end, pieces):
    answer = b"".join(line + end for line in lines)
    found = told(answer, pieces)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(http, "_HEAD", NOTHING)
        assert told(answer, pieces) == found


def test_ordinary_heads_need_no_library(monkeypatch):
    monkeypatch.setattr(http, "_asked", None)
    for answer in (
        b"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Fri, 27 Nov 2026 14:00:00 GMT\r\n\r\n<html>",
        b"HTTP/1.0 301 Moved Permanently\r\nLocation: http://192.0.2.1/\r\n\r\n",
    ):
        assert told(answer, []).reason == f"answers {answer[9:12].decode()}"


@pytest.mark.parametrize(
    "check",
    [Check("https"), Check("http", regex="x"), Check("script"), Check("ping")],
    ids=lambda each: each.kind,
)
def test_check_that_takes_more_than_one_exchange_is_not_an_exchange(check):
    assert checks.as_exchange(check, Loopback(80)) is None


def test_request_that_cannot_be_made_is_reported_by_the_check_itself(check):
    assert checks.as_exchange(Check("http", path="/ x"), Loopback(80)) is None
    assert checks.as_exchange(Check("dns", query="a" * 64), Loopback(80)) is None


def test_an_exchange_that_says_nothing_of_silence_takes_it_for_a_failure():
    made = Exchange(5.0)
    assert (made.silent, made.connected, made.receive(b"")) == (None, None, None)
    assert checks.unanswered(made.patience) == Result(False, "no answer within 5 s")
