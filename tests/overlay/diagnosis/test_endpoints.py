from __future__ import annotations

from types import SimpleNamespace

import pytest

from overlay.config import Node
from overlay.crypto.keys import PrivateKey
from overlay.diagnosis.endpoints import NAMED, check_endpoints, check_ways
from peers.prefixes import PrefixMap
from tests.peers.examples import peer, table

PRIVATE = PrivateKey(bytes(range(32)))
OWN, ETH0 = 7, 2


def found(endpoints, ways, *others, check=check_endpoints, own=()):
    """Return what *check* finds where *ways* are the interfaces by which addresses are reached with our mark.

    *own* are the addresses of this host.
    """
    paris = peer("paris", "10.244.1.0/24", public_key=PRIVATE.public)
    peers = others or (peer("tokyo", "10.244.2.0/24", "fd00:244:2::/64"),)
    facts = SimpleNamespace(
        node=Node(PRIVATE, table(paris, *peers), paris, {}),
        endpoints=frozenset(endpoints),
        plan=SimpleNamespace(fwmark=208),
        device=SimpleNamespace(index=OWN, name="overlay0"),
        udp=[SimpleNamespace(port=51820)],
        routes=SimpleNamespace(
            route_index=lambda address, mark: ways.get(str(address)) if mark == 208 else 0,
            match=lambda address, mark: SimpleNamespace(is_local=True) if str(address) in own else None,
        ),
    )
    return [str(each) for each in check(facts)]


@pytest.mark.parametrize("ways", [{}, {"10.244.2.7": OWN}])
def test_an_endpoint_that_only_its_own_tunnel_leads_to_is_named(ways):
    assert found([("tokyo", ("10.244.2.7", 51820))], ways) == [
        (
            "the endpoint of tokyo, 10.244.2.7, lies in its own subnet 10.244.2.0/24, and no route but the tunnel "
            "leads there: correct the endpoint in the peers file, or the address of its name"
        )
    ]


def test_an_endpoint_of_ipv6_is_named_too():
    assert "fd00:244:2::7" in found([("tokyo", ("fd00:244:2::7", 51820, 0, 0))], {})[0]


@pytest.mark.parametrize("address", ["10.244.2.7", "192.0.2.2", "10.244.1.7"])
def test_an_endpoint_that_another_route_leads_to_is_none_of_these(address):
    assert found([("tokyo", (address, 51820))], {address: ETH0}) == []


def test_an_endpoint_in_another_tunnel_or_of_nobody_is_none_of_these():
    assert (
        found([("tokyo", ("10.244.1.7", 51820)), ("rome", ("10.244.2.7", 51820))], {"10.244.1.7": OWN}) == []
    )


def test_a_host_that_is_offline_is_not_told_of_endpoints():
    assert found([("tokyo", ("192.0.2.2", 51820))], {}) == []


def test_of_many_a_few_are_named():
    others = [peer(f"p{number}", f"10.244.{number}.0/24") for number in range(2, 22)]
    endpoints = [(each.name, (str(each.subnets[0][1]), 51820)) for each in others]

    assert len(found(endpoints, {}, *others)) == NAMED


def test_peer_to_none_of_whose_addresses_a_route_leads_is_told_to_who_asks():
    (sentence,) = found([("tokyo", ("192.0.2.2", 51820))], {}, check=check_ways)

    assert sentence.startswith(
        "no route of this host leads to 192.0.2.2, the endpoint of tokyo: see `ip route get"
    )


@pytest.mark.parametrize(
    "endpoints",
    [
        [("tokyo", ("192.0.2.2", 51820)), ("tokyo", ("2001:db8::2", 51820, 0, 0))],  # this host lacks IPv6
        [("tokyo", ("10.244.2.7", 51820))],  # inside its tunnel, which has a finding of its own
    ],
)
def test_peer_that_a_route_leads_to_is_none_of_these(endpoints):
    assert found(endpoints, {"192.0.2.2": ETH0}, check=check_ways) == []


def test_few_of_many_peers_without_a_route_are_told():
    far = [(f"peer{number}", (f"192.0.2.{number}", 51820)) for number in range(100)]

    assert len(found(far, {}, check=check_ways)) == NAMED


def test_endpoints_that_lie_in_no_subnet_are_looked_up_once():
    """With ten thousand of them that takes a while, and the host is examined again and again."""

    class Counting(PrefixMap):
        lookups = 0

        def lookup_number(self, version, number):
            self.lookups += 1
            return super().lookup_number(version, number)

    owners, endpoints = Counting(), frozenset({("tokyo", ("192.0.2.2", 51820))})
    facts = SimpleNamespace(node=SimpleNamespace(table=SimpleNamespace(owners=owners)), endpoints=endpoints)

    for _ in range(3):
        assert list(check_endpoints(facts)) == []

    assert owners.lookups == 1


@pytest.mark.parametrize(("address", "port"), [("192.0.2.2", 51820), ("2001:db8::2", 0)])
def test_an_endpoint_that_is_this_host_itself_is_not_taken_for_one_without_a_route(address, port):
    (sentence,) = found([("tokyo", (address, port))], {}, check=check_ways, own=[address])

    assert sentence == (
        f"{address}, the endpoint of tokyo, is an address of this host, which is paris: correct the endpoint of tokyo "
        "in the peers file, or, if this host is tokyo, give it the private key of tokyo"
    )


def test_another_agent_of_this_host_is_none_of_these():
    assert found([("tokyo", ("127.0.0.1", 51821))], {}, check=check_ways, own=["127.0.0.1"]) == []


def test_an_endpoint_that_a_route_of_the_host_leads_into_the_tunnel_is_named():
    (sentence,) = found([("tokyo", ("192.0.2.2", 51820))], {"192.0.2.2": OWN}, check=check_ways)

    assert sentence.startswith(
        "a route of this host leads to 192.0.2.2, the endpoint of tokyo, by overlay0, but no peer"
    )


def test_an_endpoint_behind_another_peer_may_be_reached_by_the_tunnel():
    tokyo, rome = peer("tokyo", "10.244.2.0/24"), peer("rome", "192.0.2.0/24")

    assert found([("tokyo", ("192.0.2.2", 51820))], {"192.0.2.2": OWN}, tokyo, rome, check=check_ways) == []
