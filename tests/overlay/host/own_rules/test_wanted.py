"""The rules, as far as they do not depend on packet filters of others."""

from __future__ import annotations

from ipaddress import ip_network

from overlay.host.own_rules.wanted import Accept, Wanted


def networks(*texts):
    return tuple(map(ip_network, texts))


def wanted(*subnets, prefixes=("10.244.0.0/16",), masquerade=True, forward=True):
    return Wanted("overlay0", networks(*subnets), networks(*prefixes), masquerade, forward)


def lines(text):
    return [line.strip() for line in text.splitlines() if line.startswith("\t\t") and "hook" not in line]


def test_nothing_is_asked_for_by_itself():
    nothing = wanted("10.244.1.0/24", masquerade=False, forward=False)

    assert (nothing.table, nothing.accepts(4), nothing.accepts(6)) == ("", [], [])


def test_packets_into_the_tunnel_keep_their_source_and_others_are_masqueraded():
    assert lines(wanted("10.244.1.0/24").table) == [
        "meta mark & 0x4000 == 0x4000 return",
        'oifname "overlay0" snat ip prefix to ip saddr map { 10.244.1.0/24 : 10.244.1.0/24 }',
        "meta mark & 0x4000 == 0x4000 return",
        'oifname { "lo", "overlay0" } return',
        "ip daddr { 10.244.0.0/16, 224.0.0.0/4 } return",
        "ip saddr { 10.244.0.0/16 } masquerade fully-random",
    ]


def test_subnets_outside_the_network_are_of_the_overlay_too_and_each_address_is_there_once():
    """Sets of nft refuse what overlaps."""
    text = wanted(
        "10.244.1.0/24", "10.244.1.128/25", "192.168.7.0/24", "fd00::/64", prefixes=("10.244.0.0/16",)
    ).table

    assert "map { 10.244.1.0/24 : 10.244.1.0/24, 192.168.7.0/24 : 192.168.7.0/24 }" in text
    assert "ip daddr { 10.244.0.0/16, 192.168.7.0/24, 224.0.0.0/4 } return" in text
    assert "ip6 daddr { fd00::/64, ff00::/8 } return" in text


def test_way_out_of_the_overlay_masquerades_what_comes_from_it_and_not_everything():
    text = wanted("10.244.1.0/24", "0.0.0.0/0").table

    assert "0.0.0.0/0" not in text
    assert "ip saddr { 10.244.0.0/16 } masquerade" in text


def test_accepts_hold_for_own_subnets_alone():
    assert [" ".join(each.iptables()) for each in wanted("10.244.1.0/24", masquerade=False).accepts(4)] == [
        "-i overlay0 -o overlay0 -j ACCEPT",
        "-d 10.244.1.0/24 -i overlay0 -j ACCEPT",
        "-s 10.244.1.0/24 -o overlay0 -j ACCEPT",
        "-s 10.244.1.0/24 -d 10.244.1.0/24 -j ACCEPT",
        "-d 10.244.1.0/24 -m conntrack --ctstate RELATED,ESTABLISHED,DNAT -j ACCEPT",
    ]


def test_with_masquerading_containers_get_outside():
    assert Accept(source=ip_network("10.244.1.0/24")) in wanted("10.244.1.0/24").accepts(4)


def test_way_out_lets_nothing_pass_that_neither_enters_nor_leaves_the_tunnel():
    found = [" ".join(each.iptables()) for each in wanted("0.0.0.0/0").accepts(4)]

    assert all("overlay0" in each for each in found)
    assert "-d 0.0.0.0/0 -i overlay0 -j ACCEPT" in found


def test_each_family_has_its_own():
    assert wanted("10.244.1.0/24").accepts(6) == [Accept(enters="overlay0", leaves="overlay0")]


def test_nft_has_two_rules_for_what_is_known():
    known = Accept(destination=ip_network("fd00::/64"), is_known=True)

    assert list(known.nft()) == [
        "ip6 daddr fd00::/64 ct state established,related accept",
        "ip6 daddr fd00::/64 ct status dnat accept",
    ]
