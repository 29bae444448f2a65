"""With a tap: frames and packets, by which peer the bridge has heard their station behind."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from overlay.explaining.explanation import Path
from overlay.explaining.station import StationSighting
from overlay.explaining.stations import explain_frame
from overlay.host.netlink.route_lookup import RouteOutcome, RouteResult
from tests.overlay.explaining.bench import HERE, PEERS, ROUTES, Bench, out, refused, texts

MAC, OTHER = bytes.fromhex("aabbccddeeff"), bytes.fromhex("aabbccddee00")
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

    assert refused(frame_to(bench, StationSighting(MAC, "tokyo", age=12.0))) == ("node", "given_up")


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
    assert "a frame to it is copied to every peer" in texts(found)


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

    assert refused(found) == ("node", "own_side")


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


def between(bench, routes, station, source=None):
    """Return what becomes of a packet from 172.16.0.8, which is at a port of the tap's bridge, to 172.16.0.9."""
    bench.bridge, bench.forwards, bench.routes = "br0", False, {}
    bench.routes = {ip_network(prefix): way for prefix, way in routes.items()}
    bench.station = station
    bench.source_station = source or StationSighting(OTHER, is_here=True, age=2.0)
    return bench.explain("172.16.0.9", "172.16.0.8")


ON_THE_LAN = {"172.16.0.0/24": out("br0", "172.16.0.0/24", "172.16.0.1")}
ELSEWHERE = {"0.0.0.0/0": out("eth0", "0.0.0.0/0", "192.0.2.1", "192.0.2.254")}


@pytest.mark.parametrize("routes", [ON_THE_LAN, ELSEWHERE, {}])
def test_a_packet_between_two_stations_on_this_side_is_bridged_whatever_the_routes_are(bench, routes):
    found = between(bench, routes, StationSighting(MAC, is_here=True, age=1.0))

    assert (found.goes, found.path, found.enters) == (True, Path.OUTSIDE, "br0")
    assert "from: 172.16.0.8 is the station aa:bb:cc:dd:ee:00 at a port of br0" in texts(found)
    assert "heard 1 s ago: br0 forwards the frame between its ports" in texts(found)


def test_a_packet_of_a_station_on_this_side_to_one_behind_a_peer_is_bridged(bench):
    found = between(bench, ELSEWHERE, StationSighting(MAC, "tokyo", age=1.0))

    assert (found.goes, found.path, found.peer) == (True, Path.TUNNEL, "tokyo")


@pytest.mark.parametrize(
    ("routes", "station", "source"),
    [
        ({"172.16.0.8/31": ON_THE_LAN["172.16.0.0/24"], **ELSEWHERE}, StationSighting(), None),  # not heard
        ({**ON_THE_LAN, "172.16.0.9/32": HERE}, StationSighting(MAC, is_here=True, age=1.0), None),
        (ON_THE_LAN, StationSighting(MAC, is_here=True, age=1.0), StationSighting(OTHER, "tokyo", age=1.0)),
        (
            {"172.16.0.8/32": out("br0", "172.16.0.8/32"), **ELSEWHERE},
            StationSighting(MAC, is_here=True, age=1.0),
            None,
        ),  # another LAN: the station sends to a router
    ],
)
def test_what_is_not_between_two_stations_of_a_lan_is_not_bridged(bench, routes, station, source):
    assert "at a port of br0" not in texts(between(bench, routes, station, source))


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
