from __future__ import annotations

import contextlib
import json
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.host.firewall.nft import ELEMENTS, lacks_devices, parse, parse_devices
from overlay.host.firewall.rules import Firewall, Packet, Verdict

IN = Packet(ip_address("10.244.2.1"), ip_address("10.244.1.1"), "overlay0", "br1")
OUT = Packet(ip_address("10.244.1.1"), ip_address("10.244.2.1"), "br1", "overlay0")

# As nft 1.0.6 prints them
TABLE = '{"table": {"family": "inet", "name": "t", "handle": 1}}'
CHAIN = (
    '{"chain": {"family": "inet", "table": "t", "name": "fwd", "handle": 3, "type": "filter", "hook": "forward", '
    '"prio": 10, "policy": "%s"}}'
)
INNER = '{"chain": {"family": "inet", "table": "t", "name": "zones", "handle": 2}}'
SETS = (
    '{"set": {"family": "inet", "name": "names", "table": "t", "type": "ifname", "handle": 5, "elem": ["br1", "eth0"]}}',
    (
        '{"set": {"family": "inet", "name": "nets", "table": "t", "type": "ipv4_addr", "handle": 6, "flags": ["interval"], '
        '"elem": [{"prefix": {"addr": "10.244.0.0", "len": 16}}, {"range": ["10.8.0.1", "10.8.0.5"]}]}}'
    ),
    (
        '{"map": {"family": "inet", "name": "ports", "table": "t", "type": "inet_service", "handle": 7, "map": "verdict", '
        '"elem": [[22, {"accept": null}]]}}'
    ),
    '{"set": {"family": "inet", "name": "empty", "table": "t", "type": "ipv4_addr", "handle": 8}}',
)
RULE = '{"rule": {"family": "inet", "table": "t", "chain": "%s", "handle": 10, "expr": [%s]}}'
ACCEPT = '{"accept": null}'


def firewall(*rules, policy="drop", zones=()):
    objects = [TABLE, *SETS, CHAIN % policy, INNER]
    objects += [RULE % ("fwd", rule) for rule in rules] + [RULE % ("zones", rule) for rule in zones]
    return Firewall(parse(json.loads('{{"nftables": [{}]}}'.format(",".join(objects)))))


def is_dropped(*rules, packet=IN, **others):
    return firewall(*rules, **others).decides(packet, "forward", Verdict.DROP) is not None


def match(left, right, op="=="):
    return f'{{"match": {{"op": "{op}", "left": {left}, "right": {right}}}}}'


META = '{"meta": {"key": "%s"}}'
PAYLOAD = '{"payload": {"protocol": "%s", "field": "%s"}}'
STATE = '{"ct": {"key": "state"}}'


@pytest.mark.parametrize(
    ("expression", "holds"),
    [
        (match(META % "iifname", '"overlay0"'), True),
        (match(META % "iifname", '"over*"'), True),
        (match(META % "iif", '"lo"'), False),
        (match(META % "oifname", '"@names"'), True),
        (match(META % "oifname", '{"set": ["br0", "br2"]}'), False),
        (match(META % "oifname", '"br1"', "!="), False),
        (match(PAYLOAD % ("ip", "saddr"), '"@nets"'), True),
        (match(PAYLOAD % ("ip", "daddr"), '"@empty"'), False),
        (match(PAYLOAD % ("ip", "saddr"), '{"prefix": {"addr": "10.2.0.0", "len": 16}}', "!="), True),
        (match(PAYLOAD % ("ip", "daddr"), '{"set": [{"range": ["10.244.1.1", "10.244.1.9"]}]}'), True),
        (match(PAYLOAD % ("ip6", "daddr"), '{"set": [{"prefix": {"addr": "::", "len": 96}}]}'), False),
        (match(PAYLOAD % ("tcp", "dport"), '{"set": [22, {"range": [80, 90]}]}'), False),
        (match(PAYLOAD % ("tcp", "dport"), "80", "!="), True),
        (match(PAYLOAD % ("udp", "dport"), "80", "!="), False),
        (match(PAYLOAD % ("ip6", "saddr"), '"::1"', "!="), False),
        (match(PAYLOAD % ("ether", "type"), '"ip"'), True),
        (match(META % "protocol", '"ip6"'), False),
        (match(META % "l4proto", '{"set": ["icmp", "ipv6-icmp"]}'), False),
        (match(META % "l4proto", "6"), True),
        (match(META % "nfproto", '"ipv4"'), True),
        (match(STATE, '{"set": ["established", "related"]}'), False),
        (match(STATE, '["established", "related"]', "in"), False),
        (match(STATE, '"new"', "in"), True),
        (match('{"ct": {"key": "status"}}', '"dnat"', "in"), False),
        (match('{"&": [{"meta": {"key": "mark"}}, 16384]}', "16384"), None),
        (match('{"fib": {"result": "type", "flags": ["daddr"]}}', '"local"'), None),
        (match(PAYLOAD % ("ip", "saddr"), '"example"'), None),
        ('{"xt": {"type": "match", "name": "conntrack"}}', None),
        ('{"xt": null}', None),
        ('{"limit": {"rate": 3, "burst": 5, "per": "second"}}', None),
        ('{"counter": {"packets": 0, "bytes": 0}}, {"log": {"prefix": "x"}}', True),
    ],
)
def test_matches_of_nftables_hold_or_do_not_or_that_is_unknown(expression, holds):
    assert is_dropped(f'{expression}, {{"drop": null}}', policy="accept") == (holds is True)
    assert is_dropped(f"{expression}, {ACCEPT}") == (holds is False)


@pytest.mark.parametrize(
    ("rule", "dropped"),
    [
        ('{"reject": {"type": "icmpx", "expr": "admin-prohibited"}}', True),
        ('{"jump": {"target": "zones"}}', True),
        ('{"goto": {"target": "zones"}}', True),
        ('{"queue": {"num": 0}}', False),
        ('{"xt": {"type": "target", "name": "REJECT"}}', False),
        (('{"vmap": {"key": {"ct": {"key": "state"}}, "data": {"set": [["invalid", {"drop": null}], ["new", '
         '{"jump": {"target": "zones"}}]]}}}'), True),
        ('{"vmap": {"key": {"payload": {"protocol": "tcp", "field": "dport"}}, "data": "@ports"}}', True),
        ('{"vmap": {"key": {"payload": {"protocol": "udp", "field": "dport"}}, "data": {"set": [[0, {"accept": null}]]}}}', True),
        ('{"vmap": {"key": {"meta": {"key": "iifname"}}, "data": {"set": [["overlay0", {"accept": null}]]}}}', False),
    ],
)  # fmt: skip
def test_statements_of_nftables_do_what_they_say(rule, dropped):
    assert is_dropped(rule, zones=['{"return": null}']) == dropped


def test_masquerading_of_nftables_is_seen():
    chain = (
        '{"chain": {"family": "inet", "table": "t", "name": "post", "handle": 4, "type": "nat", "hook": "postrouting", '
        '"prio": 100, "policy": "accept"}}'
    )
    rule = RULE % (
        "post",
        match(PAYLOAD % ("ip", "saddr"), '{"prefix": {"addr": "10.244.1.0", "len": 24}}')
        + ', {"masquerade": {"flags": "fully-random"}}',
    )
    found = Firewall(parse(json.loads('{{"nftables": [{}]}}'.format(",".join([TABLE, chain, rule])))))

    assert found.decides(OUT, "postrouting", Verdict.MASQUERADE, "nat").base == "post"
    assert found.decides(IN, "postrouting", Verdict.MASQUERADE, "nat") is None


CHAINS_OF_DEVICES = """\
table netdev t {
	chain c {
		type filter hook ingress device "eth0" priority filter; policy accept;
	}
	chain d {
		type filter hook egress devices = { eth0, lo } priority filter + 5; policy drop;
	}
	chain reg {
	}
}
"""


@pytest.mark.parametrize("printed", [', "dev": "eth0"', ', "dev": ["eth0", "eth1"]', ""])
def test_chain_at_ingress_sees_what_enters_by_its_devices(printed):
    chain = (
        '{"chain": {"family": "netdev", "table": "t", "name": "c", "handle": 1, "type": "filter", "hook": "ingress", '
        f'"prio": 0, "policy": "drop"{printed}}}}}'
    )
    ruleset, devices = json.loads(f'{{"nftables": [{chain}]}}'), parse_devices(CHAINS_OF_DEVICES.splitlines())

    def drops(enters, *known):
        packet = Packet(ip_address("192.0.2.2"), None, enters, None, "udp", 51820)
        return Firewall(parse(ruleset, *known)).decides(packet, "ingress", Verdict.DROP) is not None

    assert devices == {("netdev", "t", "c"): ("eth0",), ("netdev", "t", "d"): ("eth0", "lo")}
    assert drops("eth0", devices)
    assert not drops("eth2", devices)
    assert lacks_devices(parse(ruleset)) == (not printed)
    assert drops("eth0") == bool(printed)


def test_set_that_is_too_long_to_look_into_is_unknown():
    elements = json.dumps([f"10.{number // 250}.{number % 250}.1" for number in range(ELEMENTS + 1)])
    long = match(PAYLOAD % ("ip", "saddr"), f'{{"set": {elements}}}')

    assert not is_dropped(f'{long}, {{"drop": null}}', policy="accept")
    assert not is_dropped(f"{long}, {ACCEPT}")


@pytest.mark.parametrize("text", ["[]", "{}", "null", '{"nftables": [1]}', '{"nftables": [{}]}', '{"nftables": [{"chain": {}}]}',
                                  '{"nftables": [{"rule": {"family": "ip", "table": "t", "chain": "c", "expr": []}}]}'])  # fmt: skip
def test_what_is_no_ruleset_is_refused(text):
    with pytest.raises(ValueError, match="no ruleset"):
        parse(json.loads(text))


@given(st.recursive(st.none() | st.integers() | st.text(max_size=4), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
    st.sampled_from(["match", "op", "left", "right", "vmap", "data", "key", "set", "meta", "payload", "jump", "target", "=="]),
    inner, max_size=3)))  # fmt: skip
def test_any_expression_is_read_or_refused_with_a_value_error(expression):
    rule = {"family": "inet", "table": "t", "chain": "fwd", "expr": [expression]}
    ruleset = {"nftables": [json.loads(CHAIN % "drop"), {"rule": rule}]}
    with contextlib.suppress(ValueError):
        Firewall(parse(ruleset)).decides(IN, "forward", Verdict.DROP)


def test_translation_to_itself_keeps_a_packet_from_translations_behind_it():
    """As `masquerade = true` sets it up, so that nothing hides the sender of what goes into the tunnel."""

    def ruleset(to):
        chains = [("ours", 95), ("theirs", 100)]
        objects = [
            f'{{"chain": {{"family": "inet", "table": "t", "name": "{name}", "type": "nat", "hook": "postrouting", '
            f'"prio": {priority}, "policy": "accept"}}}}'
            for name, priority in chains
        ]
        key = '{"payload": {"protocol": "ip", "field": "saddr"}}'
        pair = f'[[{{"prefix": {{"addr": "10.244.1.0", "len": 24}}}}, {{"prefix": {{"addr": "{to}", "len": 24}}}}]]'
        same = f'{{"snat": {{"family": "ip", "addr": {{"map": {{"key": {key}, "data": {{"set": {pair}}}}}}}, "flags": "netmap"}}}}'
        for name, expression in (("ours", same), ("theirs", '{"masquerade": null}')):
            objects.append(
                f'{{"rule": {{"family": "inet", "table": "t", "chain": "{name}", "handle": 7, "expr": [{expression}]}}}}'
            )
        return Firewall(tuple(parse(json.loads(f'{{"nftables": [{", ".join(objects)}]}}'))))

    def masqueraded(firewall, source):
        packet = Packet(ip_address(source), ip_address("10.244.2.2"), "br1", "overlay0")
        return firewall.decides(packet, "postrouting", Verdict.MASQUERADE, "nat") is not None

    assert not masqueraded(ruleset("10.244.1.0"), "10.244.1.7")
    assert masqueraded(ruleset("10.244.1.0"), "10.9.9.9")
    assert masqueraded(ruleset("192.0.2.0"), "10.244.1.7")
