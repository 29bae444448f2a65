"""With a tap: frames and packets, by which peer the bridge has heard their station behind."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from overlay.explaining.explanation import Path
from overlay.explaining.station import StationSighting
from overlay.explaining.stations import explain_frame
from overlay.host.netlink.route_lookup import RouteOutcome, RouteResult
from tests.overlay.explaining.bench import PEERS, ROUTES, Bench, out, texts

MAC = bytes.fromhex("aabbccddeeff")
TAP = PEERS.replace("[network]", '[network]\ndevice = "tap"')


@pytest.fixture
def bench():
    return Bench(TAP, routes={"172.16.0.0/24": out("overlay0", "172.16.0.0/24", "172.16.0.1"), **ROUTES})


def frame_to(bench, station):
    bench.station = station
    return explain_frame(bench.facts(), MAC)


def test_a_frame_goes_to_the_peer_that_its_station_was_heard_behind(bench):
    found = frame_to(bench, StationSighting(MAC, "tokyo", age=12.4))

    assert (found.destination, found.goes, found.path, found.peer) == (
        "aa:bb:cc:dd:ee:ff",
        True,
        Path.TUNNEL,
        "tokyo",
    )
    assert "station: aa:bb:cc:dd:ee:ff is behind tokyo, heard 12 s ago" in texts(found)
    assert "tunnel: wireguard to 192.0.2.2:51820" in texts(found)
    assert found.station == {
        "mac": "aa:bb:cc:dd:ee:ff",
        "place": "peer",
        "peer": "tokyo",
        "is_static": False,
        "heard_seconds": 12.4,
    }


def test_a_frame_to_a_peer_that_is_gone_is_dropped(bench):
    bench.rows["tokyo"] = {"state": "unreachable"}

    assert frame_to(bench, StationSighting(MAC, "tokyo", age=12.0)).reason == "given_up"


def test_a_station_of_the_peers_file_is_told_so(bench):
    found = frame_to(bench, StationSighting(MAC, "tokyo"))

    assert "is behind tokyo, by the peers file" in texts(found)
    assert found.station["is_static"]


def test_a_frame_to_a_station_on_this_side_enters_no_tunnel(bench):
    found = frame_to(bench, StationSighting(MAC, is_here=True, age=1.0))

    assert (found.path, found.peer, found.station["place"]) == (Path.HERE, None, "here")
    assert "on this side of overlay0, heard 1 s ago: no tunnel leads there" in texts(found)


def test_a_frame_to_an_unknown_station_is_copied_to_every_peer(bench):
    found = frame_to(bench, StationSighting(MAC))

    assert (found.path, found.peer, found.station["place"]) == (Path.TUNNEL, None, "unknown")
    assert "one to it is copied to every peer" in texts(found)


def test_a_forwarder_that_does_not_answer_is_a_doubt(bench):
    found = frame_to(bench, None)

    assert found.station is None
    assert found.doubts == ["the process that carries packets did not say where the station is"]


def test_a_packet_goes_to_the_peer_that_its_station_was_heard_behind(bench):
    bench.station = StationSighting(MAC, "rome", age=3.0)

    found = bench.explain("172.16.0.9")

    assert (found.goes, found.peer, found.prefix) == (True, "rome", None)
    assert "station: 172.16.0.9 has aa:bb:cc:dd:ee:ff, which is behind rome, heard 3 s ago" in texts(found)


def test_sources_in_frames_are_anybody_s_also_those_that_the_peers_file_names(bench):
    found = bench.explain("10.244.0.1", "10.244.2.7")

    assert "10.244.2.7 is tokyo's, by 10.244.2.0/24: sources of packets in frames are not checked" in texts(
        found
    )


def test_a_packet_by_a_router_goes_to_the_station_of_the_router(bench):
    bench.routes[ip_network("198.51.100.0/24")] = out(
        "overlay0", "198.51.100.0/24", "172.16.0.1", "172.16.0.254"
    )
    bench.station = StationSighting(MAC, "rome", age=3.0)

    found = bench.explain("198.51.100.7")

    assert found.peer == "rome"
    assert "the router 172.16.0.254 has aa:bb:cc:dd:ee:ff" in texts(found)


@pytest.mark.parametrize(
    ("destination", "how"), [("172.16.0.9", "ARP"), ("fd00:172::9", "neighbour discovery")]
)
def test_a_packet_to_an_unknown_station_is_asked_for_at_every_peer(bench, destination, how):
    bench.routes[ip_network("fd00:172::/64")] = out("overlay0", "fd00:172::/64", "fd00:172::1")
    bench.station = StationSighting()

    found = bench.explain(destination)

    assert (found.goes, found.path, found.peer) == (True, Path.TUNNEL, None)
    assert f"{destination} is asked for by {how}, at every peer" in texts(found)


def test_a_packet_to_an_unknown_station_of_a_peers_subnet_is_expected_there(bench):
    bench.station = StationSighting()

    found = bench.explain("10.244.2.7")

    assert (found.peer, found.prefix) == ("tokyo", "10.244.2.0/24")
    assert "peer: tokyo, which has 10.244.2.0/24, is expected to answer" in texts(found)


def test_a_packet_for_a_station_on_this_side_is_not_sent_into_a_tunnel(bench):
    bench.station = StationSighting(MAC, is_here=True, age=1.0)

    found = bench.explain("172.16.0.9")

    assert (found.goes, found.reason) == (False, "own_side")


@pytest.mark.parametrize("bridge", [None, "br1"])
def test_a_packet_of_a_peer_for_a_station_on_this_side_comes_out_whether_the_host_forwards_or_not(
    bench, bridge
):
    bench.forwards, bench.bridge = False, bridge
    if bridge is not None:
        bench.routes[ip_network("172.16.0.0/24")] = out(bridge, "172.16.0.0/24", "172.16.0.1")
    bench.station = StationSighting(MAC, is_here=True, age=1.0)

    found = bench.explain("172.16.0.9", "10.244.2.7")

    assert (found.goes, found.path) == (True, Path.OUTSIDE)
    assert "station: 172.16.0.9 has aa:bb:cc:dd:ee:ff, which is on this side of overlay0" in texts(found)
    assert "hub" not in texts(found)


def test_a_packet_by_the_bridge_of_the_tap_may_stay_on_this_side(bench):
    bench.bridge = "br0"
    bench.routes[ip_network("172.16.0.0/24")] = out("br0", "172.16.0.0/24", "172.16.0.1")
    bench.station = StationSighting(MAC, is_here=True, age=1.0)

    here = bench.explain("172.16.0.9")
    bench.station = StationSighting(MAC, "tokyo", age=1.0)
    there = bench.explain("172.16.0.9")

    assert (here.goes, here.path) == (True, Path.OUTSIDE)
    assert (there.goes, there.path, there.peer) == (True, Path.TUNNEL, "tokyo")


def test_a_host_without_a_route_tells_where_the_station_is(bench):
    bench.routes = {}
    bench.station = StationSighting(MAC, "tokyo", age=1.0)

    found = bench.explain("172.16.0.9")

    assert not found.goes
    assert "which is behind tokyo, heard 1 s ago: other stations reach it by frames" in texts(found)


def test_a_multicast_group_is_at_every_peer(bench):
    bench.routes[ip_network("224.0.0.0/4")] = RouteResult(
        RouteOutcome.OUT, "overlay0", ip_network("224.0.0.0/4")
    )
    bench.station = StationSighting()

    assert "its frames are copied to every peer" in texts(bench.explain("224.0.0.251"))
