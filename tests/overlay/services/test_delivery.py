"""What services require of a host, whatever its part in them; and that nft accepts the rules."""

from __future__ import annotations

import base64
from ipaddress import ip_address
from pathlib import Path

import pytest

from overlay.services.delivery import NONE, plan_delivery
from peers import toml

KEYS = [base64.b64encode(bytes([number]) * 32).decode() for number in range(1, 5)]
PEERS = f"""
[network]
prefix = ["10.244.0.0/16", "fd00:244::/32"]

[peers.lb]
public_key = "{KEYS[0]}"
subnets = ["10.244.1.0/24", "fd00:244:1::/64"]
endpoint = "192.0.2.1"

[peers.web1]
public_key = "{KEYS[1]}"
subnets = ["10.244.2.0/24", "fd00:244:2::/64"]
endpoint = "192.0.2.2"

[peers.web2]
public_key = "{KEYS[2]}"
subnets = ["10.244.3.0/24"]
endpoint = "192.0.2.3"

[peers.client]
public_key = "{KEYS[3]}"
subnets = ["10.244.4.0/24"]
"""
VIP, VIP6 = ip_address("203.0.113.80"), ip_address("2001:db8:9::80")


def delivery(own, services, peers=PEERS):
    table = toml.parse(peers + services, Path("peers.toml"))
    return plan_delivery(table, table.peers[own], "overlay0", 1420, 1_000_000)


def rules(planned, chain):
    lines = planned.rules.split("\n")
    if f"\tchain {chain} {{" not in lines:
        return []
    start = lines.index(f"\tchain {chain} {{") + 2
    return [line.strip() for line in lines[start : lines.index("\t}", start)]]


WEB = """
[services.web]
address = ["203.0.113.80", "2001:db8:9::80"]
ports = [80, "8000-8010"]
directors = ["lb"]
servers = ["web1", "web2"]
"""
WEB4 = WEB.replace('["203.0.113.80", "2001:db8:9::80"]', '"203.0.113.80"')


def test_without_services_nothing_is_asked():
    assert delivery("web1", "") == NONE


@pytest.mark.parametrize("own", ["lb", "client"])
def test_addresses_lead_into_the_tun_of_directors_and_clients(own):
    planned = delivery(own, WEB)
    assert planned.routed == (VIP, VIP6)
    assert (planned.held, planned.rules) == ((), "")


def test_server_holds_the_addresses_and_translates_nothing():
    planned = delivery("web1", WEB)
    assert (planned.routed, planned.held, planned.rules) == ((), (VIP, VIP6), "")


def test_server_on_another_port_translates_the_port_alone():
    planned = delivery("web1", WEB.replace('"web1"', '{ peer = "web1", port = 8080 }'))
    assert planned.held == (VIP, VIP6)
    assert [line for line in rules(planned, "translate") if line.startswith('iifname "')] == [
        'iifname "overlay0" ip daddr 203.0.113.80 tcp dport { 80, 8000-8010 } dnat ip to 203.0.113.80:8080',
        'iifname "overlay0" ip6 daddr 2001:db8:9::80 tcp dport { 80, 8000-8010 } dnat ip6 to [2001:db8:9::80]:8080',
    ]


def test_container_is_translated_to_and_the_host_holds_nothing():
    planned = delivery("web1", WEB4.replace('"web1"', '{ peer = "web1", address = "10.244.2.7" }'))
    assert (planned.routed, planned.held) == ((VIP,), ())
    assert rules(planned, "translate") == [
        'iifname "overlay0" ip daddr 203.0.113.80 tcp dport { 80, 8000-8010 } dnat ip to 10.244.2.7',
        'iifname "overlay0" ip daddr 203.0.113.80 icmp type echo-request dnat ip to 10.244.2.7',
    ]
    assert rules(planned, "unmark") == []


def test_several_servers_of_one_host_are_distinguished_by_a_mark_that_is_cleared():
    servers = '"web1", { peer = "web1", address = "10.244.2.7", port = 81 }, { peer = "web1", address = "10.244.2.8" }'
    planned = delivery("web1", WEB4.replace('"web1"', servers))
    translated = rules(planned, "translate")
    assert planned.held == (VIP,)
    assert [line.partition(" ip dscp ")[2].split()[0] for line in translated] == ["7", "7", "11", "11"]
    assert translated[0].endswith("dnat ip to 10.244.2.7:81")
    assert rules(planned, "unmark") == [
        'iifname "overlay0" ip dscp != cs0 ct status dnat ip dscp set cs0',
        'iifname "overlay0" ip dscp != cs0 ip daddr { 203.0.113.80 } ip dscp set cs0',
    ]


def test_director_that_is_a_server_translates_to_its_own_address():
    planned = delivery("lb", WEB.replace('"web1"', '"lb"'))
    assert (planned.routed, planned.held) == ((VIP, VIP6), ())
    assert rules(planned, "translate")[0] == (
        'iifname "overlay0" ip daddr 203.0.113.80 ip dscp 3 tcp dport { 80, 8000-8010 } dnat ip to 10.244.1.0'
    )
    assert any("dnat ip6 to fd00:244:1::" in line for line in rules(planned, "translate"))


def test_address_of_two_services_is_not_held_where_one_of_them_is_directed():
    other = WEB.replace("services.web", "services.other").replace('[80, "8000-8010"]', "[443]")
    planned = delivery("web1", WEB + other.replace('directors = ["lb"]', 'directors = ["web1"]'))
    assert (planned.routed, planned.held) == ((VIP, VIP6), ())
    assert len(rules(planned, "translate")) == 4 * 2


def test_protocols_and_every_port():
    planned = delivery(
        "web1",
        """
[services.all]
address = "203.0.113.80"
protocol = ["udp", "tcp"]
directors = ["lb"]
servers = [{ peer = "web1", address = "10.244.2.7" }]
""",
    )
    assert [
        line.split(" dnat ")[0].partition("203.0.113.80 ")[2] for line in rules(planned, "translate")
    ] == [
        "udp dport 1-65535",
        "tcp dport 1-65535",
        "icmp type echo-request",
    ]


def test_size_of_segments_is_limited_where_a_director_sends_in_the_clear():
    assert rules(delivery("web1", WEB), "clamp") == []
    clear = PEERS.replace("[peers.web1]", '[peers.web1]\nencapsulation = "ipip"')
    assert rules(delivery("web1", WEB, clear), "clamp") == [
        "ip saddr 203.0.113.80 tcp flags syn / syn,rst tcp option maxseg size > 1380 tcp option maxseg size set 1380",
        "ip6 saddr 2001:db8:9::80 tcp flags syn / syn,rst tcp option maxseg size > 1360 tcp option maxseg size set 1360",
    ]


def test_answers_go_back_through_the_director_where_the_file_says_so():
    assert delivery("web1", WEB).returned == ()
    assert delivery("web1", WEB + 'reply = "director"\n').returned == (VIP, VIP6)
    assert delivery("client", WEB + 'reply = "director"\n').returned == ()


def test_settings_are_those_of_the_tun_where_clients_packets_come_out_of_it():
    loose = {"ipv4/conf/overlay0/rp_filter": 2}
    assert delivery("client", WEB).settings("overlay0") == {}
    forwarding = {"ipv4/conf/overlay0/forwarding": 1}
    assert delivery("lb", WEB).settings("overlay0") == forwarding
    assert delivery("web1", WEB).settings("overlay0") == loose
    itself = delivery("lb", WEB.replace('"web1"', '"lb"'))
    assert itself.settings("overlay0") == forwarding | loose | {"ipv4/conf/overlay0/accept_local": 1}
