from __future__ import annotations

import contextlib
import logging
import socket

import pytest
import trio
from trio.testing import MockClock

from overlay.encap import ENCAPSULATIONS
from overlay.host.names import Names as Known
from overlay.resolver import (
    CLEAR_INTERVAL,
    FIRST_TIME,
    LOOKUPS_AT_ONCE,
    RESOLVE_INTERVAL,
    RESOLVE_PAUSE,
    RESOLVE_TIMEOUT,
    ResolveError,
    Resolver,
    UnderlayResolver,
    known,
    literal,
    resolve,
    resolve_first,
)
from overlay.roster import Remote
from peers.peer import Endpoint
from tests.peers.examples import peer

FIRST, SECOND, THIRD = ("192.0.2.1", 51820), ("192.0.2.2", 51820), ("192.0.2.3", 51820)


class Names(trio.abc.HostnameResolver):
    """A name server: the current address of each name, or its error; *delay* in seconds."""

    def __init__(self):
        self.addresses = {}
        self.delay = 0.0
        self.asked = []
        self.at_once = self.most_at_once = 0

    async def getaddrinfo(self, host, port, family=0, type=0, proto=0, flags=0):  # noqa: A002  trio's name
        name = host.decode() if isinstance(host, bytes) else host
        self.asked.append(name)
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        try:
            await trio.sleep(self.delay)
        finally:
            self.at_once -= 1
        found = self.addresses.get(name, socket.gaierror(socket.EAI_NONAME, "Name or service not known"))
        if isinstance(found, Exception):
            raise found
        return [
            (
                socket.AF_INET6 if ":" in address else socket.AF_INET,
                socket.SOCK_DGRAM,
                socket.IPPROTO_UDP,
                "",
                (address, port, 0, 0) if ":" in address else (address, port),
            )
            for address in found
        ]

    async def getnameinfo(self, sockaddr, flags):
        raise AssertionError


@pytest.fixture
def names():
    return Names()


class Site:
    """A running resolver, with a record of its reports."""

    def __init__(self, nursery, names):
        trio.socket.set_custom_hostname_resolver(names)
        self.names = names
        self.moved = []
        self.known = Known(None)
        self.resolver = Resolver(nursery, self._take, self.known)

    async def _take(self, remote, endpoint, cause):
        self.moved.append((remote.peer.name, endpoint, cause))
        remote.endpoint = endpoint

    @staticmethod
    async def settle():
        await trio.sleep(60)


@pytest.fixture
def at_site(names):
    """Return a runner of ``async def story(site)`` in simulated time."""

    def run(story):
        async def main():
            async with trio.open_nursery() as nursery:
                await story(Site(nursery, names))
                nursery.cancel_scope.cancel()

        trio.run(main, clock=MockClock(autojump_threshold=0), strict_exception_groups=True)

    return run


def remote(endpoint="tokyo.example.net", number=1):
    tokyo = peer("tokyo", "10.244.2.0/24", endpoint=endpoint)
    return Remote(number, tokyo, None, configured=tokyo.endpoint)


# Addresses


@pytest.mark.parametrize(
    ("text", "sockaddrs"),
    [
        ("192.0.2.1:4500", (("192.0.2.1", 4500),)),
        ("[2001:db8::1]:4500", (("2001:db8::1", 4500, 0, 0),)),
        ("fe80::1%7", (("fe80::1", 51820, 0, 7),)),
        ("fe80::1%lo", (("fe80::1", 51820, 0, socket.if_nametoindex("lo")),)),
        ("fe80::1%nowhere", ()),
        ("tokyo.example.net", ()),
    ],
)
def test_literal_endpoint_is_its_own_socket_address(text, sockaddrs):
    assert literal(Endpoint.parse(text, 51820)) == sockaddrs


def test_literal_endpoint_is_resolved_without_asking_anybody(names, at_site):
    async def story(site):
        assert await resolve(Endpoint("192.0.2.1", 51820)) == (FIRST,)

    at_site(story)
    assert names.asked == []


def test_literal_endpoint_without_its_interface_is_not_asked_of_a_name_server(names, at_site):
    async def story(site):
        with pytest.raises(
            ResolveError, match="fe80::1%nowhere is on an interface that this host does not have"
        ):
            await resolve(Endpoint.parse("fe80::1%nowhere", 51820))

    at_site(story)
    assert names.asked == []


def test_name_stands_for_its_addresses_in_the_hosts_order_each_once(names, at_site):
    names.addresses["tokyo.example.net"] = ["2001:db8::1", "192.0.2.1", "2001:db8::1"]

    async def story(site):
        found = await resolve(Endpoint("tokyo.example.net", 51820))

        assert found == (("2001:db8::1", 51820, 0, 0), FIRST)

    at_site(story)


@pytest.mark.parametrize("useless", ["0.0.0.0", "255.255.255.255", "224.0.0.1", "::", "ff02::1"])
def test_address_of_no_host_that_a_name_server_tells_is_passed_over(names, at_site, useless):
    names.addresses["tokyo.example.net"] = [useless, "192.0.2.1"]
    names.addresses["blocked.example.net"] = [useless]

    async def story(site):
        assert await resolve(Endpoint("tokyo.example.net", 51820)) == (FIRST,)
        with pytest.raises(ResolveError, match="it has no address of a single host"):
            await resolve(Endpoint("blocked.example.net", 51820))

    at_site(story)


def test_mapped_address_is_used_as_the_ipv4_address_that_it_is(names, at_site):
    names.addresses["tokyo.example.net"] = ["::ffff:192.0.2.1"]

    async def story(site):
        assert await resolve(Endpoint("tokyo.example.net", 51820)) == (FIRST,)

    at_site(story)


def test_silent_name_server_is_a_sentence_after_ten_seconds(names, at_site):
    names.delay = 1000.0

    async def story(site):
        began = trio.current_time()
        with pytest.raises(ResolveError, match=r"tokyo\.example\.net was not resolved in 10 s"):
            await resolve(Endpoint("tokyo.example.net", 51820))
        assert trio.current_time() - began == pytest.approx(RESOLVE_TIMEOUT)

    at_site(story)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"), "Temporary failure"),
        (OSError("odd"), "odd"),
        (UnicodeError("label too long"), "it is not a host name"),
    ],
)
def test_name_that_is_not_resolved_gets_its_reason(names, at_site, error, reason):
    names.addresses["tokyo.example.net"] = error

    async def story(site):
        with pytest.raises(ResolveError, match=rf"was not resolved \({reason}"):
            await resolve(Endpoint("tokyo.example.net", 51820))

    at_site(story)


# Endpoints of remotes


def test_name_that_resolves_late_is_told_when_it_does(names, at_site):
    tokyo = remote()

    async def story(site):
        site.resolver.resolve_soon(tokyo, 100.0)
        await site.settle()
        assert (site.moved, tokyo.resolved) == ([], ())
        names.addresses["tokyo.example.net"] = ["192.0.2.1"]

        site.resolver.resolve_due([tokyo], 100.0 + RESOLVE_PAUSE)
        await site.settle()

        assert site.moved == [("tokyo", FIRST, "dns")]
        assert tokyo.resolved == (FIRST,)

    at_site(story)


def test_failure_of_a_name_that_the_peer_has_no_more_is_not_its_error(names, at_site, caplog):
    tokyo = remote()
    names.delay = 1.0

    async def story(site):
        site.resolver.resolve_soon(tokyo, 100.0)
        await trio.sleep(0.5)
        tokyo.configured = Endpoint("192.0.2.1", 51820)
        await site.settle()

        assert (tokyo.resolve_error, site.moved) == (None, [("tokyo", FIRST, "configuration")])

    at_site(story)
    assert not caplog.records


def test_failure_is_news_once(names, at_site, caplog):
    tokyo = remote()

    async def story(site):
        for now in (100.0, 110.0, 120.0):
            site.resolver.resolve_due([tokyo], now)
            await site.settle()
        names.addresses["tokyo.example.net"] = ["192.0.2.1"]
        site.resolver.resolve_due([tokyo], 130.0)
        await site.settle()
        del names.addresses["tokyo.example.net"]
        site.resolver.resolve_due([tokyo], 130.0 + RESOLVE_INTERVAL)
        await site.settle()

    with caplog.at_level(logging.DEBUG, "overlay"):
        at_site(story)

    levels = [record.levelname for record in caplog.records if "was not resolved" in record.message]
    assert levels == ["WARNING", "DEBUG", "DEBUG", "WARNING"]


def test_names_are_looked_up_again_every_five_minutes_and_sooner_while_unknown(names, at_site):
    known, unknown = remote("known.example.net", 1), remote("unknown.example.net", 2)
    names.addresses["known.example.net"] = ["192.0.2.1"]

    async def story(site):
        for now in range(1000, 1000 + int(RESOLVE_INTERVAL)):
            site.resolver.resolve_due([known, unknown], float(now))
            await site.settle()
        assert names.asked.count("known.example.net") == 1
        assert names.asked.count("unknown.example.net") == RESOLVE_INTERVAL / RESOLVE_PAUSE
        site.resolver.resolve_due([known], 1000 + RESOLVE_INTERVAL)
        await site.settle()
        assert names.asked.count("known.example.net") == 2

    at_site(story)


def test_literal_endpoint_is_never_due(names, at_site):
    tokyo = remote("192.0.2.1")
    tokyo.resolved, tokyo.endpoint = (FIRST,), FIRST

    async def story(site):
        site.resolver.resolve_due([tokyo], 1e6)
        await site.settle()

    at_site(story)
    assert names.asked == []


def test_link_local_endpoint_is_found_when_its_interface_is_there(at_site):
    tokyo = remote("fe80::1%lo")  # as if lo had come after the agent

    async def story(site):
        site.resolver.resolve_due([tokyo], 100.0)
        await site.settle()

        assert site.moved == [("tokyo", ("fe80::1", 51820, 0, socket.if_nametoindex("lo")), "configuration")]

    at_site(story)


def test_peer_that_called_first_stays_where_it_was_heard(names, at_site):
    tokyo = remote()
    tokyo.endpoint = tokyo.heard_at = ("203.0.113.9", 4500)
    names.addresses["tokyo.example.net"] = ["192.0.2.1"]

    async def story(site):
        site.resolver.resolve_soon(tokyo, 100.0)
        await site.settle()
        names.addresses["tokyo.example.net"] = ["192.0.2.2"]
        site.resolver.resolve_due([tokyo], 100.0 + RESOLVE_INTERVAL)
        await site.settle()

        assert site.moved == []
        assert tokyo.resolved == (SECOND,)

    at_site(story)


def test_peer_follows_its_name_to_another_address(names, at_site):
    tokyo = remote()
    names.addresses["tokyo.example.net"] = ["192.0.2.1"]

    async def story(site):
        site.resolver.resolve_soon(tokyo, 100.0)
        await site.settle()
        names.addresses["tokyo.example.net"] = ["192.0.2.2"]
        site.resolver.resolve_due([tokyo], 100.0 + RESOLVE_INTERVAL)
        await site.settle()

        assert site.moved == [("tokyo", FIRST, "dns"), ("tokyo", SECOND, "dns")]

    at_site(story)


def test_other_order_of_the_same_addresses_moves_nobody(names, at_site):
    tokyo = remote()
    names.addresses["tokyo.example.net"] = ["192.0.2.1", "192.0.2.2"]

    async def story(site):
        site.resolver.resolve_soon(tokyo, 100.0)
        await site.settle()
        names.addresses["tokyo.example.net"] = ["192.0.2.2", "192.0.2.1"]
        site.resolver.resolve_due([tokyo], 100.0 + RESOLVE_INTERVAL)
        await site.settle()

        assert site.moved == [("tokyo", FIRST, "dns")]

    at_site(story)


def test_handshakes_without_an_answer_try_every_address_in_turn(names, at_site):
    tokyo = remote()
    names.addresses["tokyo.example.net"] = ["192.0.2.1", "192.0.2.2"]

    async def story(site):
        site.resolver.resolve_soon(tokyo, 100.0)
        await site.settle()
        tokyo.heard_at = THIRD
        for attempt in range(1, 5):
            site.resolver.resolve_soon(tokyo, 100.0 + 5 * attempt, attempt)
            await site.settle()

        # The first report is the look-up's.  Attempt 1 would go to FIRST, where the peer is already.
        assert [endpoint for _, endpoint, _ in site.moved] == [FIRST, SECOND, THIRD, FIRST]

    at_site(story)


def test_retries_do_not_ask_the_name_server_more_than_every_ten_seconds(names, at_site):
    tokyo = remote()
    names.addresses["tokyo.example.net"] = ["192.0.2.1"]

    async def story(site):
        for attempt in range(18):
            site.resolver.resolve_soon(tokyo, 100.0 + 5 * attempt, attempt)
            await site.settle()

        assert len(names.asked) == 9

    at_site(story)


def test_peer_stays_reachable_by_what_was_resolved_while_the_name_server_fails(names, at_site):
    tokyo = remote()
    names.addresses["tokyo.example.net"] = ["192.0.2.1", "192.0.2.2"]

    async def story(site):
        site.resolver.resolve_soon(tokyo, 100.0)
        await site.settle()
        names.addresses.clear()
        site.resolver.resolve_soon(tokyo, 200.0, 1)
        await site.settle()

        assert tokyo.resolved == (FIRST, SECOND)
        assert tokyo.endpoint == SECOND

    at_site(story)


def test_endpoint_that_is_configured_anew_during_a_look_up_is_looked_up_next(names, at_site):
    tokyo = remote("old.example.net")
    names.addresses |= {"old.example.net": ["192.0.2.1"], "new.example.net": ["192.0.2.2"]}
    names.delay = 5.0

    async def story(site):
        site.resolver.resolve_soon(tokyo, 100.0)
        await trio.sleep(1)
        tokyo.configured = remote("new.example.net").configured
        site.resolver.resolve_soon(tokyo, 101.0)
        await site.settle()

        assert site.moved == [("tokyo", SECOND, "dns")]

    at_site(story)


def test_endpoint_that_is_taken_away_during_a_look_up_is_let_go_of(names, at_site):
    tokyo = remote()
    names.addresses["tokyo.example.net"] = ["192.0.2.1"]
    names.delay = 5.0

    async def story(site):
        site.resolver.resolve_soon(tokyo, 100.0)
        await trio.sleep(1)
        tokyo.configured = remote(None).configured
        await site.settle()

        assert (site.moved, tokyo.resolved) == ([], ())

    at_site(story)


def test_one_look_up_of_a_peer_runs_at_a_time(names, at_site):
    tokyo = remote()
    names.delay = 5.0

    async def story(site):
        for _ in range(3):
            site.resolver.resolve_soon(tokyo, 100.0)
            await trio.sleep(1)

        assert len(names.asked) == 1

    at_site(story)


def test_many_slow_names_each_get_their_time(names, at_site):
    remotes = [remote(f"{number}.example.net", number) for number in range(1, 101)]
    names.addresses = {f"{number}.example.net": [f"192.0.2.{number}"] for number in range(1, 101)}
    names.delay = RESOLVE_TIMEOUT - 1

    async def story(site):
        site.resolver.resolve_due(remotes, 100.0)
        await trio.sleep(1000)

        assert len(site.moved) == 100
        assert names.most_at_once == LOOKUPS_AT_ONCE

    at_site(story)


def test_peer_without_endpoint_is_no_work(names, at_site):
    async def story(site):
        site.resolver.resolve_soon(remote(None), 100.0, 3)
        site.resolver.resolve_due([remote(None)], 1e6)
        await site.settle()

    at_site(story)
    assert names.asked == []


# What is known without a look-up, and what is looked up when


def test_names_are_remembered_for_the_next_start(names, at_site):
    async def story(site):
        names.addresses["tokyo.example.net"] = ["192.0.2.1", "2001:db8::1"]
        site.resolver.resolve_soon(remote(), 100.0)
        site.resolver.resolve_soon(remote("192.0.2.7", 2), 100.0)
        await site.settle()

        assert site.known.find("tokyo.example.net") == ("192.0.2.1", "2001:db8::1")
        assert site.known.find("192.0.2.7") == ()
        assert known(Endpoint("tokyo.example.net", 7), site.known) == (
            ("192.0.2.1", 7),
            ("2001:db8::1", 7, 0, 0),
        )

    at_site(story)


def test_a_name_that_fails_is_looked_up_soon_again_although_an_address_is_known(names, at_site):
    async def story(site):
        tokyo = remote()
        tokyo.resolved, tokyo.endpoint = (FIRST,), FIRST
        site.resolver.resolve_soon(tokyo, 100.0)
        await site.settle()
        assert tokyo.resolve_error is not None
        names.addresses["tokyo.example.net"] = ["192.0.2.2"]

        site.resolver.resolve_due([tokyo], 100.0 + RESOLVE_PAUSE)
        await site.settle()

        assert site.moved == [("tokyo", SECOND, "dns")]

    at_site(story)


def test_names_in_the_clear_are_looked_up_more_often(names, at_site):
    async def story(site):
        names.addresses["tokyo.example.net"] = ["192.0.2.1"]
        tokyo = remote()
        tokyo.encapsulation = ENCAPSULATIONS["udp"]
        site.resolver.resolve_soon(tokyo, 100.0)
        await site.settle()
        names.addresses["tokyo.example.net"] = ["192.0.2.2"]

        site.resolver.resolve_due([tokyo], 99.0 + CLEAR_INTERVAL)
        await site.settle()
        assert tokyo.endpoint == FIRST
        site.resolver.resolve_due([tokyo], 100.0 + CLEAR_INTERVAL)
        await site.settle()

        assert tokyo.endpoint == SECOND

    at_site(story)


def test_all_names_are_looked_up_when_somebody_asks_but_not_twice_in_a_moment(names, at_site):
    async def story(site):
        names.addresses["tokyo.example.net"] = ["192.0.2.1"]
        remotes = [remote(), remote("192.0.2.7", 2)]
        for now in (100.0, 101.0, 109.0, 110.0):
            site.resolver.resolve_again(remotes, now)
            await site.settle()

        assert names.asked == ["tokyo.example.net"] * 2

    at_site(story)


def test_the_start_waits_for_names_of_which_nothing_is_known_but_not_for_ever(names, at_site):
    async def story(site):
        names.addresses["tokyo.example.net"] = ["192.0.2.1"]
        tokyo, known_already, silent = remote(), remote("rome.example.net", 2), remote(number=3)
        known_already.resolved, known_already.endpoint = (THIRD,), THIRD
        began = trio.current_time()

        await resolve_first([tokyo, known_already], site.known)
        assert (tokyo.endpoint, known_already.endpoint) == (FIRST, THIRD)
        assert names.asked == ["tokyo.example.net"]
        names.delay = 1000.0
        await resolve_first([silent], site.known)

        assert silent.endpoint is None
        assert trio.current_time() - began <= FIRST_TIME

    at_site(story)


def test_a_name_that_is_not_found_outside_is_looked_up_as_others_do_the_next_time(monkeypatch):
    asked = []

    def look(way, answers):
        def getaddrinfo(*arguments):
            asked.append(way)
            if not answers:
                raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
            return []

        return getaddrinfo

    async def story():
        resolver = UnderlayResolver(65520)
        for outside_answers in (True, False, False, True, True):
            monkeypatch.setattr("overlay.host.policy_bypass.getaddrinfo", look("outside", outside_answers))
            monkeypatch.setattr("socket.getaddrinfo", look("inside", True))
            with contextlib.suppress(socket.gaierror):
                await resolver.getaddrinfo(b"tokyo.example.net", 7)

    trio.run(story)

    assert asked == ["outside", "outside", "inside", "outside", "outside"]


def test_the_name_of_an_address_is_asked_for_as_that_user_too(monkeypatch):
    monkeypatch.setattr(
        "overlay.host.policy_bypass.as_owner", lambda uid, look, *arguments: (uid, look, arguments)
    )

    found = trio.run(UnderlayResolver(65520).getnameinfo, ("192.0.2.7", 9), 4)

    assert found == (65520, socket.getnameinfo, (("192.0.2.7", 9), 4))
