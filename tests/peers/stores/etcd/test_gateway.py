"""The gateway's calls, with the same expectations of the real etcd and the one in memory; and failures."""

from __future__ import annotations

import json
import re

import pytest
import trio
import trio.testing

from peers.stores.etcd import messages
from peers.stores.etcd.gateway import PATIENCE, Gateway
from peers.stores.etcd.location import EtcdLocation
from peers.stores.etcd.messages import (
    Cause,
    Delete,
    GatewayError,
    Get,
    Put,
    is_absent,
    is_unchanged,
    prefix_end,
)
from tests.etcd.served import Served
from tests.peers.stores.etcd.conftest import InMemory, compact

A, B, PREFIX = b"/overlay/office/a", b"/overlay/office/b", b"/overlay/office/"
END = prefix_end(PREFIX)


def test_listing_has_all_keys_of_a_range_at_one_revision(either):
    async def main(gateway):
        await gateway.put(A, b"1")
        header = await gateway.put(B, b"\xff\x00")
        await gateway.put(b"/overlay/other", b"")
        listing = await gateway.range(PREFIX, END)
        assert [(kv.key, kv.value, kv.version) for kv in listing.kvs] == [(A, b"1", 1), (B, b"\xff\x00", 1)]
        assert listing.header.revision == header.revision + 1
        assert listing.header.cluster == header.cluster
        assert listing.kvs[1].modified == listing.kvs[1].created == header.revision
        assert (await gateway.range(b"/none")).kvs == ()

    either.run(main)


def test_long_listing_comes_in_pages_and_is_of_one_revision(either, monkeypatch):
    monkeypatch.setattr("peers.stores.etcd.gateway.PAGE", 3)
    sizes, parse = [], messages.parse_page
    keys = [PREFIX + b"%02d" % number for number in range(10)]

    async def main(gateway):
        for each in keys:
            await gateway.put(each, b"before")
        last = await gateway.put(A, b"before")
        call = gateway._call

        async def change_meanwhile(path, *arguments):
            answer = await call(path, *arguments)
            if path == "/kv/range" and len(sizes) == 1:
                monkeypatch.setattr(gateway, "_call", call)
                await gateway.put(keys[9], b"after")
                await gateway.delete(keys[8])
            return answer

        monkeypatch.setattr(gateway, "_call", change_meanwhile)
        monkeypatch.setattr(messages, "parse_page", lambda answer: noted(parse(answer)))
        listing = await gateway.range(PREFIX, END)

        assert [(kv.key, kv.value) for kv in listing.kvs] == [(each, b"before") for each in (*keys, A)]
        assert listing.header.revision == last.revision
        assert sizes == [3, 3, 3, 2]

    def noted(page):
        sizes.append(len(page[0].kvs))
        return page

    either.run(main)


def test_transaction_is_done_as_a_whole_or_not_at_all(either):
    async def main(gateway):
        won = await gateway.transact([is_absent(A)], [Put(A, b"mine")], [Get(A)])
        assert (won.succeeded, won.found) == (True, ())
        lost = await gateway.transact([is_absent(A)], [Put(A, b"other"), Put(B, b"other")], [Get(A)])
        assert not lost.succeeded
        ((kept,),) = lost.found
        assert kept.value == b"mine"
        swapped = await gateway.transact([is_unchanged(A, kept.modified)], [Delete(A), Put(B, b"x")])
        assert swapped.succeeded
        assert [kv.key for kv in (await gateway.range(PREFIX, END)).kvs] == [B]

    either.run(main)


def test_lease_ends_with_its_keys_when_it_is_revoked(either):
    async def main(gateway):
        lease = await gateway.grant(60)
        assert lease.seconds == 60
        await gateway.put(A, b"1", lease.number)
        assert (await gateway.range(A)).kvs[0].lease == lease.number
        assert (await gateway.keep_alive(lease.number)).seconds == 60
        assert 0 < (await gateway.time_to_live(lease.number)).seconds <= 60
        assert await gateway.revoke(lease.number)
        assert (await gateway.range(A)).kvs == ()

    either.run(main)


def test_lease_that_is_gone_is_told_by_each_call(either):
    async def main(gateway):
        assert (await gateway.keep_alive(99999)).seconds == 0
        assert (await gateway.time_to_live(99999)).seconds == 0
        assert not await gateway.revoke(99999)
        with pytest.raises(GatewayError, match="has no such lease") as caught:
            await gateway.put(A, b"1", 99999)
        assert caught.value.cause is Cause.GONE

    either.run(main)


def test_watch_tells_each_change_once_and_in_order(either):
    async def main(gateway):
        first = (await gateway.put(A, b"0")).revision
        async with gateway.watch(PREFIX, END, first + 1) as watch:
            created = await watch.next()
            assert created.is_created
            assert not created.events
            await gateway.put(A, b"1")
            await gateway.transact([], [Put(A, b"2"), Delete(B)])
            await gateway.put(b"/overlay/other", b"")
            await gateway.delete(A)
            told = []
            while len(told) < 3:
                told += (await watch.next()).events
        assert [(event.kv.key, event.kv.value, event.is_deleted) for event in told] == [
            (A, b"1", False),
            (A, b"2", False),
            (A, b"", True),
        ]
        assert [event.kv.modified for event in told] == [first + 1, first + 2, first + 4]

    either.run(main)


def test_watch_begins_with_what_happened_since_a_revision(either):
    async def main(gateway):
        first = (await gateway.put(A, b"0")).revision
        await gateway.put(B, b"1")
        async with gateway.watch(PREFIX, END, first) as watch:
            told = []
            while len(told) < 2:
                told += (await watch.next()).events
        assert [event.kv.value for event in told] == [b"0", b"1"]

    either.run(main)


def test_watch_from_before_a_compaction_ends_with_its_revision(either):
    async def main(gateway):
        first = (await gateway.put(A, b"0")).revision
        last = (await gateway.put(A, b"1")).revision
        await compact(gateway, last)
        async with gateway.watch(PREFIX, END, first) as watch:
            while not (notice := await watch.next()).canceled:
                pass
        assert notice.compacted == last

    either.run(main)


def test_large_line_of_a_watch_is_read_in_any_pieces(either):
    value = b"x" * 700_000

    async def main(gateway):
        first = (await gateway.put(A, b"0")).revision
        await gateway.put(A, value)
        async with gateway.watch(PREFIX, END, first + 1) as watch:
            while not (notice := await watch.next()).events:
                pass
        assert notice.events[0].kv.value == value

    either.run(main)


async def until_it_ends(watch):
    while True:
        await watch.next()


@pytest.mark.slow
def test_calls_go_on_after_etcd_has_started_anew(tmp_path, real_etcd):
    async def main():
        gateway = Gateway(EtcdLocation.parse("etcd", f"//{real_etcd.url}/office"), patience=60.0)
        await gateway.put(A, b"1")
        async with gateway.watch(PREFIX, END, 1) as watch:
            await watch.next()
            await trio.to_thread.run_sync(real_etcd.stop)
            with pytest.raises(GatewayError) as caught:
                await until_it_ends(watch)
            assert caught.value.cause is Cause.AWAY
        with pytest.raises(GatewayError, match="cannot be reached: Connection refused; see that it runs"):
            await gateway.put(A, b"2")
        await trio.to_thread.run_sync(real_etcd.start)
        assert (await gateway.range(A)).kvs[0].value == b"1"
        await gateway.aclose()

    trio.run(main)


# Failures, in memory


def failure(served, call, url="//10.0.0.5:2379/office"):
    """Return the error of *call* with the gateway to *served*."""
    found = []

    async def main(gateway):
        with pytest.raises(GatewayError) as caught:
            await call(gateway)
        found.append(caught.value)

    runner = InMemory()
    runner.served = served
    runner.run(main, url)
    return found[0]


def put(gateway):
    return gateway.put(A, b"1")


def test_silent_etcd_is_given_up_after_its_time():
    served = Served()
    served.is_silent = True
    began = []

    async def call(gateway):
        began.append(trio.current_time())
        try:
            await put(gateway)
        finally:
            began.append(trio.current_time())

    error = failure(served, call)

    assert "etcd at 10.0.0.5:2379 did not answer within 5 s" in str(error)
    assert error.cause is Cause.AWAY
    assert began[1] - began[0] == pytest.approx(PATIENCE)


@pytest.mark.parametrize(
    ("answer", "cause", "said"),
    [
        ((200, b"<html>"), Cause.GARBLED, "not etcd 3.4 or later: it is not JSON; correct the URL"),
        ((200, b"[]"), Cause.GARBLED, "not a JSON object"),
        ((200, {"header": []}), Cause.GARBLED, "header is not an object"),
        ((404, b"404 page not found"), Cause.GARBLED, "it answers 404"),
        ((404, {"error": "Not Found", "code": 5}), Cause.REFUSED, "refuses the call: Not Found"),
        ((503, {"error": "etcdserver: no leader", "code": 14}), Cause.AWAY, "not able to answer .*no leader"),
        ((504, b""), Cause.AWAY, "HTTP 504"),
        ((403, {"error": "etcdserver: permission denied", "code": 7}), Cause.FORBIDDEN, "does not permit"),
        (
            (
                503,
                {
                    "error": 'connection error: desc = "transport: failed to write client preface: tls: bad"',
                    "code": 14,
                },
            ),
            Cause.TLS,
            "its own certificate is for servers alone.*serverAuth, clientAuth",
        ),
        (
            (400, b"Client sent an HTTP request to an HTTPS server.\n"),
            Cause.TLS,
            "speaks TLS; write etcds://",
        ),
        ((400, {"error": "etcdserver: user name is empty", "code": 3}), Cause.LOGIN, "asks for a login"),
        (
            (400, {"error": "etcdserver: strange\n\x1b", "code": 3}),
            Cause.REFUSED,
            r"refuses the call: etcdserver: strange\?\?",
        ),
    ],
)
def test_what_etcd_says_in_place_of_an_answer_has_a_remedy(answer, cause, said):
    served = Served()
    served.answer_with = answer

    error = failure(served, put)

    assert error.cause is cause
    assert error.is_lasting == (cause in {Cause.GARBLED, Cause.FORBIDDEN, Cause.TLS, Cause.LOGIN})
    assert re.search(said, str(error)), str(error)


@pytest.mark.parametrize(
    "answer",
    [
        {"kvs": [{"key": "YQ=="}], "count": "2"},
        {"kvs": [{"key": "YQ=="}], "count": "1", "more": True},
        {"kvs": [{"key": "YQ=="}]},
    ],
)
def test_partial_listing_is_not_taken(answer):
    served = Served()
    served.answer_with = (200, answer | {"header": {"cluster_id": "1", "revision": "5"}})

    error = failure(served, lambda gateway: gateway.range(PREFIX, END))

    assert "the listing is not complete" in str(error)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (
            b'HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"header":{}}',
            "etcd at h:2379 closed the connection in the middle of an answer; see that it runs",
        ),
        (
            b"HTTP/1.1 200",
            "etcd at h:2379 closed the connection in the middle of an answer; see that it runs",
        ),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "what answers at h:2379 does not speak HTTP, as etcd does (illegal"),
    ],
)
def test_answer_that_is_cut_off_or_not_one_is_not_taken(answer, said):
    async def hang_up(endpoint):
        stream, theirs = trio.testing.memory_stream_pair()
        await theirs.send_all(answer)
        await theirs.send_eof()  # it still receives the request
        return stream

    async def main():
        gateway = Gateway(EtcdLocation.parse("etcd", "//h/office"), hang_up)
        with pytest.raises(GatewayError) as caught:
            await gateway.range(PREFIX, END)
        assert caught.value.cause is Cause.AWAY
        assert said in str(caught.value)

    trio.run(main)


def test_next_endpoint_is_asked_where_one_is_away():
    served = Served()
    asked = []

    async def main():
        async def open_stream(endpoint):
            asked.append(endpoint.host)
            if endpoint.host != "c":
                raise ConnectionRefusedError(111, "Connection refused")
            return await served.open(endpoint)

        async with trio.open_nursery() as nursery:
            await nursery.start(served.run)
            gateway = Gateway(EtcdLocation.parse("etcd", "//a,b,c/office"), open_stream)
            await gateway.put(A, b"1")
            await gateway.put(A, b"2")
            await gateway.aclose()
            nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))

    assert asked[-1] == "c"
    assert asked.count("c") == 1  # its connection is kept


@pytest.fixture
def login(tmp_path):
    (tmp_path / "pw").write_text("secret\n")
    return f"//10.0.0.5:2379/office?user=ann&password-file={tmp_path}/pw"


def test_login_is_made_once_and_again_where_the_token_is_forgotten(in_memory, login):
    in_memory.served.password = ("ann", "secret")

    async def main(gateway):
        await put(gateway)
        await put(gateway)
        assert len(in_memory.served.tokens) == 1
        in_memory.served.restart()
        await put(gateway)
        assert len(in_memory.served.tokens) == 1
        in_memory.served.tokens.clear()
        async with gateway.watch(PREFIX, END, 1) as watch:
            assert (await watch.next()).is_created

    in_memory.run(main, login)


def test_login_that_etcd_does_not_ask_for_is_no_matter(in_memory, login):
    async def main(gateway):
        await put(gateway)
        await put(gateway)

    in_memory.run(main, login)


def test_wrong_password_is_said_without_it(login):
    error = failure(Served(password=("ann", "another")), put, login)

    assert error.cause is Cause.LOGIN
    assert "does not let ann in; correct user, or the password in" in str(error)
    assert "secret" not in str(error)


def test_etcd_with_logins_asks_whoever_has_none():
    error = failure(Served(password=("ann", "another")), put)

    assert "asks for a login; write ?user=NAME&password-file=FILE" in str(error)


def test_error_in_a_watch_ends_it(in_memory):
    async def main(gateway):
        in_memory.served.answer_with = (
            200,
            json.dumps(
                {"error": {"grpc_code": 14, "http_code": 503, "message": "transport is closing"}}
            ).encode()
            + b"\n",
        )
        async with gateway.watch(PREFIX, END, 1) as watch:
            with pytest.raises(GatewayError, match="transport is closing") as caught:
                await watch.next()
        assert caught.value.cause is Cause.AWAY

    in_memory.run(main)
