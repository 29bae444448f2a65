"""Packets of some size: tests/two_nodes/test_explained_sizes.py compares with what the packet path does."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

import pytest

from overlay.explaining.explanation import Path
from tests.overlay.explaining.bench import PEERS, ROUTES, Bench, out, refused, texts

HERE, BEHIND = None, {4: "10.244.1.5", 6: "fd00:244:1::5"}
THERE = {4: "10.244.2.7", 6: "fd00:244:2::7"}


def make_bench(path_mtu=None, device="tun", **row):
    text = PEERS.replace("[network]", f'[network]\ndevice = "{device}"')
    for number in (1, 2):
        text = text.replace(f'"10.244.{number}.0/24"', f'"10.244.{number}.0/24", "fd00:244:{number}::/64"')
    routes = {
        "fd00:244::/32": out("overlay0", "fd00:244::/32", "fd00:244:1::1"),
        "fd00:244:1::/64": out("br0", "fd00:244:1::/64", "fd00:244:1::1"),
    }
    bench = Bench(text, routes=ROUTES | routes)
    bench.rows["tokyo"] = {"path_mtu": path_mtu} | row
    return bench


def told(found):
    fit = found.fit
    return fit["fate"], fit["fate_without_df"], *refused(found), fit["icmp_mtu_bytes"]


WHOLE, V6_WHOLE = ("whole", "whole", None, None, None), ("whole", None, None, None, None)


@pytest.mark.parametrize(
    ("version", "is_behind", "path_mtu", "size", "expected"),
    [
        (4, False, None, 1420, WHOLE),
        (4, False, None, 1421, ("too_big", "fragmented", "kernel", None, None)),
        (4, True, None, 1421, ("too_big", "fragmented", "kernel", None, 1420)),
        (4, True, 1344, 1421, ("too_big", "fragmented", "kernel", None, 1420)),
        (4, False, 1344, 1344, WHOLE),
        (4, False, 1344, 1345, ("too_big", "fragmented", "node", "path_mtu", 1344)),
        (4, True, 1344, 1345, ("too_big", "fragmented", "node", "path_mtu", 1344)),
        (6, False, None, 1420, V6_WHOLE),
        (6, False, None, 1421, ("fragmented", None, None, None, None)),
        (6, True, None, 1421, ("too_big", None, "kernel", None, 1420)),
        (6, False, 1344, 1421, ("too_big", None, "node", "path_mtu", 1344)),
        (6, True, 1200, 1281, ("too_big", None, "node", "path_mtu", 1280)),
        (6, True, 1200, 1280, ("outer_fragmented", None, None, None, None)),
    ],
)
def test_a_size_has_its_fate_by_family_and_by_who_sends_it(version, is_behind, path_mtu, size, expected):
    found = make_bench(path_mtu).explain(THERE[version], BEHIND[version] if is_behind else HERE, size=size)

    assert told(found) == expected
    assert found.goes == (expected[0] != "too_big")


def test_a_path_that_the_kernel_has_learnt_bounds_what_it_sends_and_not_what_it_forwards():
    bench = make_bench()
    for prefix in ("10.244.0.0/16", "fd00:244::/32"):
        bench.routes[ip_network(prefix)] = replace(bench.routes[ip_network(prefix)], mtu=1300)

    assert told(bench.explain(THERE[4], size=1301)) == ("too_big", "fragmented", "kernel", None, None)
    assert told(bench.explain(THERE[6], size=1301)) == ("fragmented", None, None, None, None)
    assert told(bench.explain(THERE[4], BEHIND[4], size=1301)) == WHOLE


@pytest.mark.parametrize(
    ("version", "path_mtu", "mss", "largest"),
    [(4, None, 1380, 1420), (6, None, 1360, 1420), (4, 1200, 1160, 1200), (6, 1200, 1220, 1280)],
)
def test_the_numbers_are_those_of_device_and_path(version, path_mtu, mss, largest):
    found = make_bench(path_mtu).explain(THERE[version], size=100)

    assert (found.fit["device_mtu_bytes"], found.fit["path_mtu_bytes"]) == (1420, path_mtu)
    assert (found.fit["mss_bytes"], found.fit["largest_bytes"]) == (mss, largest)
    assert f"packets of up to {largest} bytes pass whole" in texts(found)


def test_nobody_is_told_of_a_frame_that_the_path_does_not_take():
    found = make_bench(1344, device="tap").explain(THERE[4], size=1400)

    assert told(found) == ("outer_fragmented", "outer_fragmented", None, None, None)
    assert any("fragmented outside the tunnel" in each for each in found.doubts)


def test_what_does_not_fit_is_dropped_before_the_far_side_can_refuse_it():
    bench = make_bench(1344)

    found = bench.explain(THERE[4], "192.0.2.1", size=1400)

    assert (found.path, *refused(found)) == (Path.NOWHERE, "node", "path_mtu")
    assert "the sender of 1400 bytes with DF is told that 1344 pass" in texts(found)


def test_units_are_named_where_they_are_sent():
    assert "up to 40 segments" in texts(make_bench(unit_segments=40).explain(THERE[4], size=1400))
    assert "units:" not in texts(make_bench(unit_segments=40).explain(THERE[4], size=295))
    assert "units:" not in texts(make_bench(unit_segments=0).explain(THERE[4], size=1400))


def test_without_a_size_nothing_is_said_of_one():
    found = make_bench().explain(THERE[4])

    assert found.fit is None
    assert "limits" not in texts(found)


def test_a_size_past_the_tunnel_is_a_doubt():
    found = make_bench().explain("203.0.113.7", size=1400)

    assert found.fit is None
    assert any("whether 1400 bytes fit" in each for each in found.doubts)
