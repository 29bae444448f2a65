"""Packets that come out of the tunnel."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from overlay.explaining.explanation import Origin, Path
from overlay.host.firewall.rules import Verdict
from overlay.host.netlink.route_lookup import RouteOutcome
from tests.overlay.explaining.bench import PEERS, Bench, out, texts
from tests.overlay.explaining.test_leaving import end, filtering


@pytest.fixture
def bench():
    return Bench()


def test_a_packet_of_a_peer_is_delivered_or_forwarded(bench):
    here, behind = bench.explain("10.244.0.1", "10.244.2.7"), bench.explain("10.244.1.5", "10.244.2.7")

    assert (here.origin, here.enters, here.sender) == (Origin.TUNNEL, "overlay0", "tokyo")
    assert end(here) == (Path.HERE, True, None, None)
    assert end(behind) == (Path.OUTSIDE, True, None, None)
    assert "10.244.2.7 is tokyo's, by 10.244.2.0/24: no other peer may send from there" in texts(behind)
    assert "answers: go back by 10.244.0.0/16 by overlay0" in texts(behind)


@pytest.mark.parametrize("source", ["10.9.9.9", "203.0.113.5", "10.244.77.7"])
def test_a_source_of_nobody_is_refused_whoever_sends_it(bench, source):
    found = bench.explain("10.244.1.5", source)

    assert end(found) == (Path.NOWHERE, False, "node", "source")
    assert f"whichever peer sends it, this node drops it: no peer has {source}" in texts(found)


def test_a_neighbour_of_this_host_does_not_come_by_the_tunnel(bench):
    assert bench.explain("10.244.1.5", "192.0.2.77").origin is Origin.INTERFACE


def test_the_reverse_path_check_is_told_with_the_route_that_it_goes_by(bench):
    bench.refused["10.244.2.7"] = RouteOutcome.DISCARDED
    bench.routes[ip_network("10.244.2.0/24")] = out("eth1", "10.244.2.0/24")

    found = bench.explain("10.244.0.1", "10.244.2.7")

    assert end(found) == (Path.NOWHERE, False, "kernel", None)
    assert "answers to 10.244.2.7 would leave by eth1, by the route 10.244.2.0/24 by eth1" in texts(found)


def test_answers_that_go_elsewhere_are_a_doubt(bench):
    bench.routes[ip_network("10.244.2.0/24")] = out("eth1", "10.244.2.0/24")

    found = bench.explain("10.244.0.1", "10.244.2.7")

    assert found.goes
    assert "answers to 10.244.2.7 leave by eth1 and not through the tunnel" in found.doubts[0]


def test_a_host_that_does_not_forward_delivers_to_itself_alone(bench):
    bench.forwards = False

    assert bench.explain("10.244.0.1", "10.244.2.7").goes
    assert end(bench.explain("10.244.1.5", "10.244.2.7")) == (Path.NOWHERE, False, "kernel", None)


@pytest.mark.parametrize(
    ("hook", "destination"),
    [("input", "10.244.0.1"), ("forward", "10.244.1.5"), ("prerouting", "10.244.1.5")],
)
def test_packet_filters_of_this_host_count(bench, hook, destination):
    bench.firewall = filtering(hook, Verdict.DROP, address=f"{destination}/32")

    assert end(bench.explain(destination, "10.244.2.7")) == (Path.NOWHERE, False, "packet filter", None)


def test_what_goes_on_to_another_peer_is_refused_there(bench):
    found = bench.explain("10.244.3.3", "10.244.2.7")

    assert (found.sender, found.peer) == ("tokyo", "rome")
    assert end(found) == (Path.TUNNEL, False, "peer", "source")
    assert "10.244.2.0/24 is tokyo's" in texts(found)


def test_in_the_clear_a_peer_may_send_from_its_sources():
    text = PEERS.replace(
        'subnets = ["10.244.2.0/24"]', 'subnets = ["10.244.2.0/24"]\nsources = ["0.0.0.0/0"]'
    )
    bench = Bench(text.replace("[network]", '[network]\nencapsulation = "ipip"'))

    found = bench.explain("10.244.0.1", "198.51.100.1")

    assert (found.sender, found.goes) == ("tokyo", True)
    assert bench.explain("10.244.0.1", "10.244.3.3").sender == "rome"


def test_a_peer_that_is_not_up_is_a_doubt(bench):
    bench.rows["tokyo"] = {"state": "silent"}

    assert "tokyo is silent" in bench.explain("10.244.0.1", "10.244.2.7").doubts
