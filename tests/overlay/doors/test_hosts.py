"""Names that mean this host, and names by which a web site could read what only this host may read."""

from __future__ import annotations

import socket

import pytest
import trio
import trio.testing

from overlay.doors import hosts
from overlay.doors.hosts import Hosts, hosts_of, own_names
from peers.listening import parse_place

LOCAL = "127.0.0.1:9586"
REMOTE = "192.0.2.1:9586"
ANYWHERE = "[::]:9586"
SOCKET = "/run/overlay/metrics.sock"


async def find_names():
    return {"paris", "paris.example.com"}


@pytest.fixture
def includes():
    def ask(place, host):
        return trio.run(Hosts(parse_place(place), find_names).include, host)

    return ask


@pytest.mark.parametrize(
    ("place", "host"),
    [
        (LOCAL, "127.0.0.1:9586"),
        (LOCAL, "LOCALHOST"),
        (LOCAL, "localhost.:9000"),
        (LOCAL, "[::1]:9586"),
        (LOCAL, ""),  # a browser always names one
        ("127.0.0.9:9586", "127.0.0.9:9586"),
        (REMOTE, "192.0.2.1:9586"),
        (REMOTE, "[2001:db8::1]:9586"),
        (REMOTE, "10.244.0.1"),  # a site has no address for this name
        (REMOTE, "paris:9586"),
        (REMOTE, "Paris.example.com.:9586"),
        (ANYWHERE, "localhost:9586"),
        (ANYWHERE, "127.0.0.1:9586"),
        (SOCKET, "paris.example.net"),  # requested of a proxy
    ],
)
def test_this_host_may_be_named_in_all_its_ways(includes, place, host):
    assert includes(place, host)


@pytest.mark.parametrize(
    ("place", "host"),
    [
        (LOCAL, "evil.example:9586"),
        (LOCAL, "localhost.evil.example"),
        (LOCAL, "127.0.0.1.evil.example"),
        (LOCAL, "192.0.2.1"),
        (LOCAL, "localhost:x"),
        (LOCAL, "paris"),
        (REMOTE, "evil.example:9586"),
        (REMOTE, "paris.evil.example"),
        (REMOTE, "192.0.2.1.evil.example"),
        (REMOTE, "2001:db8::1"),
        (REMOTE, "[192.0.2.1]"),
        (ANYWHERE, "evil.example"),
    ],
)
def test_name_that_was_made_to_lead_here_is_not_of_this_host(includes, place, host):
    assert not includes(place, host)


def test_other_loopback_addresses_name_themselves():
    assert "127.0.0.9" in hosts_of(parse_place("127.0.0.9:80"))
    assert "[::1]" in hosts_of(parse_place("[::1]:8051"))
    assert hosts_of(parse_place(REMOTE)) is None
    assert hosts_of(parse_place(SOCKET)) is None


class Resolver(trio.abc.HostnameResolver):
    """Answers *canonical* for every name, or as without a name server."""

    def __init__(self, canonical=None, seconds=0.0):
        self.canonical, self.seconds = canonical, seconds

    async def getaddrinfo(self, host, port, family=0, type=0, proto=0, flags=0):  # noqa: A002  trio's name
        await trio.sleep(self.seconds)
        if self.canonical is None:
            raise socket.gaierror(socket.EAI_AGAIN, "no name server")
        return [(socket.AF_INET, type, proto, self.canonical, ("192.0.2.1", 0))]

    async def getnameinfo(self, sockaddr, flags):
        raise AssertionError(f"the name of {sockaddr} was looked up, which a visitor could choose")


@pytest.mark.parametrize(
    ("resolver", "expected"),
    [
        (Resolver("Paris.example.com"), {"paris", "paris.example.com"}),
        (Resolver(), {"paris"}),
        (Resolver("paris.example.com", seconds=hosts.PATIENCE + 1), {"paris"}),
    ],
)
def test_own_names_are_those_that_the_host_has_and_finds_in_time(monkeypatch, resolver, expected):
    monkeypatch.setattr(socket, "gethostname", lambda: "paris")

    async def main():
        trio.socket.set_custom_hostname_resolver(resolver)
        return await own_names()

    assert trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0)) == expected
