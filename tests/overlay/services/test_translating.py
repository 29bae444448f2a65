"""Rules for packets of clients and for answers, chain by chain; tests/overlay/host/test_translations.py gives them to
nft.
"""

from __future__ import annotations

import pytest

from tests.overlay.services.test_delivery import PEERS, WEB, WEB4, delivery, rules

BOX = WEB4.replace('"web1"', '{ peer = "web1", address = "10.244.2.7" }')
BACK = 'reply = "director"\n'


def test_what_comes_out_of_the_tunnel_for_a_container_is_a_connection_of_its_own():
    assert rules(delivery("web1", BOX), "apart") == [
        'iifname "overlay0" ip daddr 203.0.113.80 tcp dport { 80, 8000-8010 } ct original zone set 151',
        'iifname "overlay0" ip daddr 203.0.113.80 meta l4proto icmp ct original zone set 151',
    ]
    assert rules(delivery("web1", WEB), "apart") == []


def test_director_tells_what_was_chosen_for_it_from_what_is_to_be_balanced():
    planned = delivery("lb", WEB.replace('"web1"', '"lb"'))
    assert rules(planned, "apart") == [
        'iifname "overlay0" ip daddr 203.0.113.80 ip dscp 3 ct original zone set 151',
        'iifname "overlay0" ip6 daddr 2001:db8:9::80 ip6 dscp 3 ct original zone set 151',
    ]
    assert all(" dscp 3 " in rule for rule in rules(planned, "translate"))
    assert len(rules(planned, "unmark")) == 2


def test_clients_at_the_host_of_a_server_find_its_port_too():
    planned = delivery("web1", WEB.replace('"web1"', '{ peer = "web1", port = 8080 }'))
    local = "ip daddr 203.0.113.80 tcp dport { 80, 8000-8010 } dnat ip to 203.0.113.80:8080"
    assert rules(planned, "translate_own")[0] == local
    assert f'iifname != "overlay0" {local}' in rules(planned, "translate")


def test_clients_at_the_host_of_a_server_on_the_port_that_they_ask_for_are_left_alone():
    servers = '{ peer = "web1", port = 8080 }, "web1"'
    assert rules(delivery("web1", WEB.replace('"web1"', servers)), "translate_own") == []


def test_containers_that_are_asked_from_behind_their_own_host_answer_the_host():
    assert rules(delivery("web1", BOX), "hairpin") == [
        "ct status dnat ct original ip daddr 203.0.113.80 ip daddr 10.244.2.7 ip saddr { 10.244.2.0/24 } masquerade"
    ]
    assert rules(delivery("lb", WEB.replace('"web1"', '"lb"')), "hairpin") == []


@pytest.mark.parametrize("chain", ["answer", "answer_own"])
def test_answers_that_are_translated_back_are_marked_where_they_go_through_the_director(chain):
    assert rules(delivery("web1", BOX), chain) == []
    assert rules(delivery("web1", WEB + BACK), chain) == []  # they come from the address itself
    marked = "ct direction reply ct status dnat ct original ip daddr 203.0.113.80 meta mark set 1000000"
    found = rules(delivery("web1", BOX + BACK), chain)
    assert found == [marked if chain == "answer_own" else f'iifname != "overlay0" {marked}']


def test_segments_are_limited_when_answers_have_the_address_of_the_service():
    planned = delivery("web1", WEB, PEERS.replace("[peers.web1]", '[peers.web1]\nencapsulation = "ipip"'))
    assert "chain clamp {\n\t\ttype filter hook postrouting priority 110;" in planned.rules
