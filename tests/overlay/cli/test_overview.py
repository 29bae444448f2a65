"""The status as text of a given width."""

from __future__ import annotations

import pytest

from overlay.cli.agents import read_status
from overlay.cli.overview import fit, render, troubled_first
from tests.overlay.cli.fakes import STATUS, peer_status

LONG_NOTE = (
    "this host does not forward IPv4: its subnets are not reached; run `sysctl -w net.ipv4.ip_forward=1`"
)


def status(*peers, **fields):
    return read_status("overlay0", {"status": STATUS | {"peers": list(peers)} | fields})


def busy(name, **fields):
    return peer_status(
        name,
        **{
            "state": "up",
            "endpoint": "203.0.113.200:51820",
            "subnets": ["10.244.200.0/24", "192.168.177.0/24", "192.168.178.0/24"],
            "last_handshake": 3725.0,
            "last_received": 125.0,
            "path_mtu": 1344,
            "rx_bytes": 812_000_000,
            "tx_bytes": 3_000_000_000,
        }
        | fields,
    )


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120])
@pytest.mark.parametrize("device", ["tun", "tap"])
def test_no_line_is_wider_than_the_terminal(width, device):
    strangers = [
        {
            "public_key": "A" * 43 + "=",
            "endpoint": "192.0.2.2:51820",
            "calls": 3,
            "last_call": 2.5,
            "peer": "tokyo",
        }
    ]
    shown = render(
        status(
            busy("tokyo", drops={f"reason_{number}": number for number in range(20)}),
            busy("a-host-with-a-long-name", state="unencrypted", encapsulation="vxlan"),
            notes=[LONG_NOTE],
            strangers=strangers,
            device=device,
        ),
        width,
    )

    assert max(map(len, shown.split("\n"))) <= max(width, 56)  # a public key is not cut


def test_all_that_is_essential_of_a_peer_has_room_at_80_columns():
    shown = render(status(busy("tokyo")), 80).split("\n")

    assert shown[-3].split() == ["NAME", "STATE", "ENDPOINT", "HANDSHAKE", "RECEIVED", "MTU", "RX", "TX"]
    assert "203.0.113.200:51820" in shown[-2]
    assert "2 min 5 s" in shown[-2]
    assert shown[-1].startswith("(too narrow for SUBNETS")


def test_containers_have_a_line_where_there_are_any():
    assert "containers" not in render(status(busy("tokyo")))

    containers = {"attached": 3, "subnets": ["10.244.1.0/24", "fd00:244:0:1::/64"]}
    shown = render(status(busy("tokyo"), containers=containers))
    assert "containers  3 attached, addresses from 10.244.1.0/24, fd00:244:0:1::/64\n" in shown
    shown = render(status(busy("tokyo"), containers={"attached": 1, "subnets": []}))
    assert "containers  1 attached\n" in shown


def test_without_a_terminal_nothing_is_left_out():
    shown = render(status(busy("tokyo"), notes=[LONG_NOTE]))

    assert LONG_NOTE in shown
    assert "192.168.177.0/24 +1" in shown
    assert "too narrow" not in shown


def test_what_is_wrong_comes_before_what_is_as_it_should_be():
    shown = render(
        status(
            busy("tokyo", drops={"replay": 3}), reload_error="line 3", notes=["a note"], drops={"no_peer": 1}
        )
    )

    places = [
        shown.index(word) for word in ("not loaded", "a note", "interface ", "no_peer 1", "replay 3", "NAME")
    ]
    assert places == sorted(places)


def test_drops_that_grow_come_first_and_say_by_how_much():
    before = status(
        busy("tokyo", drops={"replay": 3, "source": 9}), busy("rome", drops={"ttl": 50}), drops={"no_peer": 8}
    )
    now = status(
        busy("tokyo", drops={"replay": 5, "source": 9}), busy("rome", drops={"ttl": 50}), drops={"no_peer": 8}
    )

    lines = [line for line in render(now, None, before).split("\n") if line.startswith("dropped")]

    assert lines == [
        "dropped     tokyo: replay 5 (+2), source 9",
        "dropped     this node: no_peer 8",
        "dropped     rome: ttl 50",
    ]


def test_drops_of_many_peers_do_not_hide_the_peers():
    shown = render(status(*(busy(f"p{number}", drops={"replay": number + 1}) for number in range(100))))

    assert sum(line.startswith("dropped") for line in shown.split("\n")) == 11
    assert "dropped     at 90 more; --json has all" in shown


def test_peers_in_trouble_come_first_and_the_others_stay_in_their_order():
    peers = [busy(f"p{number}") for number in range(100)]
    peers[50] = busy("p50", notes=["the clock of p50 is behind"])
    peers[70] = busy("p70", state="unreachable")
    peers[80] = busy("p80", state="connecting")

    shown = troubled_first(status(*peers))

    assert [each.name for each in shown.peers][:6] == ["p70", "p50", "p80", "p0", "p1", "p2"]


def test_a_screen_that_is_too_small_keeps_its_first_lines_and_counts_the_others():
    lines = fit(status(*(busy(f"p{number}") for number in range(100))), 80, 24, None).split("\n")

    assert len(lines) == 23
    names = [line.split()[0] for line in lines if line]
    at = names.index("NAME")
    assert names[at : at + 3] == ["NAME", "p0", "p1"]
    assert lines[-1].startswith("... and ")


def test_services_are_a_line_by_how_they_stand():
    status = read_status("overlay0", {"status": STATUS | {"services": {"up": 3, "degraded": 1}}})

    assert "\nservices    3 up, 1 degraded\n" in render(status)


def test_lanes_are_shown_if_there_are_several():
    carried = [
        {"rx_bytes": 2048, "tx_bytes": 1024, "rx_packets": 7, "tx_packets": 5},
        {"rx_bytes": 0, "tx_bytes": 4096, "rx_packets": 0, "tx_packets": 9},
    ]

    text = render(status(busy("tokyo", session_lanes=2, open_lanes=1), lanes=2, lane_traffic=carried))

    assert "LANE  RX        TX        PACKETS RX  PACKETS TX" in text
    assert "0     2.00 KiB  1.00 KiB  7           5" in text
    assert text.splitlines()[-1].endswith("1 of 2")


def test_lanes_are_not_shown_if_there_is_one():
    assert "LANE" not in render(status(busy("tokyo")))
