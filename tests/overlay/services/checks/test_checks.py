"""``tcp``, ``udp``, ``dns`` and ``ping``; and what all kinds have in common."""

from __future__ import annotations

import socket

import dns.message
import dns.rcode
import pytest
import trio
import trio.testing

from overlay.services import checks
from overlay.services.checking import Result
from overlay.services.checks.dialer import NotAskedError
from peers.service import Check
from peers.services.keys import KINDS
from tests.ports import refusing_port


def idle():
    """Return a clock on which the time of a check is over once nobody has anything more to say."""
    return trio.testing.MockClock(autojump_threshold=0.05)


async def silent(_stream):
    await trio.sleep_forever()


def test_every_kind_that_a_file_may_name_can_be_run():
    assert checks.KINDS.keys() == KINDS.keys()


def test_tcp_is_good_where_a_connection_is_accepted(check):
    result = check("tcp", silent)
    assert result.is_good
    assert result.reason.startswith("accepts connections at port ")


@pytest.mark.parametrize("kind", ["tcp", "http", "https"])
def test_refused_connection_is_reported_as_such(check, kind):
    with refusing_port() as port:
        assert check(kind, port=port) == Result(False, "connection refused")


@pytest.mark.parametrize("kind", ["http", "https"])
def test_check_of_a_server_that_hangs_ends_in_its_time(check, kind):
    assert check(kind, silent, timeout=20, clock=idle()) == Result(False, "no answer within 20 s")


def test_reason_is_of_printable_characters_and_bounded(monkeypatch, check):
    async def hostile(*_):
        return Result(False, "\x1b[2J" + "x" * 10_000)

    monkeypatch.setattr(checks, "runner", lambda _: hostile)
    reason = check("tcp").reason
    assert reason.startswith("\\x1b[2Jxxx")
    assert len(reason) == checks.REASON_SIZE


def test_check_whose_module_cannot_be_loaded_is_not_made_and_says_what_to_do(monkeypatch):
    """As after an upgrade, until the agent is restarted."""
    monkeypatch.setitem(checks.KINDS, "new", "of_another_release")

    assert checks.as_exchange(Check("new"), None) is None
    with pytest.raises(NotAskedError, match=r"of_another_release.*upgraded.*restart the agent"):
        trio.run(checks.run, Check("new"), None)


# udp


@pytest.mark.parametrize(
    ("expect", "answers", "result"),
    [
        (b"pong", [b"pong 1"], Result(True, "answers as expected")),
        (b"", [b"anything"], Result(True, "answers as expected")),
        (b"pong", [b"ping"], Result(False, "gives an unexpected answer")),
        (b"pong", [], Result(False, "no answer within 60 s")),
        (None, [b"anything"], Result(True, "answers")),
        (None, [], Result(True, "does not refuse datagrams")),
    ],
)
def test_udp(check, expect, answers, result):
    clock = None if answers else idle()
    assert check("udp", datagrams=lambda _: answers, send=b"ping", expect=expect, clock=clock) == result


def test_udp_sends_the_configured_data(check):
    heard = []
    check("udp", datagrams=lambda data: heard.append(data) or [b""], send=b"\0\1")
    assert heard == [b"\0\1"]


def test_udp_that_is_refused_by_icmp_is_bad_although_nothing_is_expected(check):
    with refusing_port(socket.SOCK_DGRAM) as port:
        assert check("udp", port=port, send=b"x") == Result(False, "connection refused")


# dns


def answering(code):
    def answer(data):
        reply = dns.message.make_response(dns.message.from_wire(data))
        reply.set_rcode(code)
        return [reply.to_wire()]

    return answer


@pytest.mark.parametrize(("code", "is_good"), [("NOERROR", True), ("SERVFAIL", False), ("NXDOMAIN", False)])
def test_dns_is_good_without_an_error(check, code, is_good):
    result = check(
        "dns", datagrams=answering(dns.rcode.from_text(code)), query="health.example.", query_type="A"
    )
    assert result == Result(is_good, f"answers A health.example. with {code}")


def test_dns_passes_over_what_does_not_answer_its_question(check):
    def answers(data):
        other = dns.message.make_response(dns.message.make_query("other.example.", "A"))
        return [b"garbage", other.to_wire(), *answering(dns.rcode.NOERROR)(data)]

    assert check("dns", datagrams=answers).is_good
    assert check("dns", datagrams=lambda _: [b"garbage"], clock=idle()) == Result(
        False, "no answer within 60 s"
    )


def test_dns_server_that_sends_anything_but_an_answer_is_bad(check):
    result = check("dns", datagrams=lambda _: [b"garbage"] * 150)
    assert result == Result(False, "sends many datagrams, and none answers the question")


# ping


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_ping(check, address):
    try:
        assert check("ping", address=address) == Result(True, "answers pings")
    except PermissionError:
        pytest.skip("no raw sockets")
