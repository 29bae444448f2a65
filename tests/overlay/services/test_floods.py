"""The kernel's rules against floods at a director; tests/overlay/host/test_translations.py passes them to nft."""

from __future__ import annotations

import pytest

from tests.overlay.services.test_delivery import WEB, delivery

ALL = """
[services.all]
address = "203.0.113.80"
protocol = ["udp", "tcp"]
directors = ["lb"]
servers = ["web1"]
new_flows_per_second = 10
"""


def chain(limits, name):
    lines = limits.split("\n")
    start = lines.index(f"\tchain {name} {{") + 1
    return [line.strip() for line in lines[start : lines.index("\t}", start)]]


def test_only_what_begins_a_connection_on_its_way_into_the_tun_is_counted():
    assert chain(delivery("lb", WEB).limits, "towards_tun") == [
        "type filter hook forward priority 0; policy accept;",
        'oifname "overlay0" tcp flags & (fin | syn | rst | ack) == syn jump beginning',
    ]


def test_narrower_service_of_an_address_comes_first():
    assert chain(delivery("lb", ALL + WEB).limits, "beginning") == [
        "ip daddr 203.0.113.80 tcp dport { 80, 8000-8010 } goto service1",
        "ip6 daddr 2001:db8:9::80 tcp dport { 80, 8000-8010 } goto service1",
        "ip daddr 203.0.113.80 goto service0",
    ]


def test_during_a_flood_one_in_twenty_of_what_is_allowed_begins():
    limits = delivery("lb", WEB + "new_flows_per_second = 4000\n").limits

    assert "limit allowed0 { rate over 4000/second burst 400 packets; }" in limits
    assert "limit few0 { rate over 200/second burst 20 packets; }" in limits
    assert chain(limits, "service0") == [
        'limit name "allowed0" update @flooded0 { oifname }',
        'oifname @flooded0 limit name "few0" drop',
    ]


def test_smallest_limit_lets_some_begin():
    limits = delivery("lb", ALL.replace("= 10", "= 1")).limits

    assert "limit few0 { rate over 1/second burst 5 packets; }" in limits


@pytest.mark.parametrize("own", ["web1", "client"])
def test_node_that_is_not_a_director_limits_nothing(own):
    assert delivery(own, WEB).limits == ""


def test_services_without_tcp_are_not_limited_by_the_kernel():
    assert delivery("lb", ALL.replace('["udp", "tcp"]', '"udp"')).limits == ""
