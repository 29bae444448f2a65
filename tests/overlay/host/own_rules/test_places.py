"""Where accepts go, depending on the rules of others."""

from __future__ import annotations

import json

import pytest

from overlay.host.firewall import iptables, nft
from overlay.host.firewall.rules import Firewall
from overlay.host.own_rules.places import chain_name, find_places
from overlay.host.own_rules.wanted import Wanted
from tests.overlay.host.own_rules.test_wanted import wanted

WANTED = wanted("10.244.1.0/24", masquerade=False)

OPEN = ":INPUT DROP [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n"
CLOSED = ":INPUT ACCEPT [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT ACCEPT [0:0]\n"
DOCKER = (
    CLOSED
    + """\
:DOCKER - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A FORWARD -i docker0 -o docker0 -j ACCEPT
-A DOCKER-USER -j RETURN
"""
)
OURS = """\
:OVERLAY-overlay0 - [0:0]
-A OVERLAY-overlay0 -i overlay0 -o overlay0 -j ACCEPT
-A OVERLAY-overlay0 -d 10.244.1.0/24 -i overlay0 -j ACCEPT
-A OVERLAY-overlay0 -s 10.244.1.0/24 -o overlay0 -j ACCEPT
-A OVERLAY-overlay0 -s 10.244.1.0/24 -d 10.244.1.0/24 -j ACCEPT
-A OVERLAY-overlay0 -d 10.244.1.0/24 -m conntrack --ctstate RELATED,ESTABLISHED,DNAT -j ACCEPT
"""


def filter_table(text, program="iptables", family="ip"):
    return iptables.parse(("*filter\n" + text + "COMMIT\n").splitlines(), family, program)


def places(*tables, is_new=False, of=WANTED):
    found = find_places(Firewall(tuple(each for table in tables for each in table)), of, is_new=is_new)
    return [(each.table.program, each.table.family, each.jumps_from) for each in found]


@pytest.mark.parametrize(
    ("text", "where"),
    [
        (OPEN, []),
        (CLOSED, ["FORWARD"]),
        (DOCKER, ["DOCKER-USER"]),
        (CLOSED + ":DOCKER-USER - [0:0]\n", ["FORWARD"]),  # to which nothing jumps
        (OPEN + "-A FORWARD -j REJECT\n", ["FORWARD"]),
        (OPEN + "-A FORWARD -s 10.0.0.0/8 -o eth7 -j DROP\n", ["FORWARD"]),  # perhaps
        (OPEN + "-A FORWARD -s 192.168.0.0/16 -j DROP\n", []),
        (CLOSED + "-A FORWARD -j ACCEPT\n", []),
    ],
    ids=["open", "policy", "docker", "left by docker", "reject", "perhaps", "others", "all accepted"],
)
def test_accepts_go_where_packets_may_be_dropped(text, where):
    assert [place for _, _, place in places(filter_table(text))] == where


def test_each_table_that_drops_gets_its_own():
    found = places(
        filter_table(DOCKER),
        filter_table(CLOSED, "iptables-legacy"),
        filter_table(CLOSED, "ip6tables", "ip6"),
    )

    assert found == [
        ("iptables", "ip", "DOCKER-USER"),
        ("iptables-legacy", "ip", "FORWARD"),
        ("ip6tables", "ip6", "FORWARD"),
    ]


def test_what_is_complete_stays_as_it_is_wherever_it_stands():
    """Two agents that both had to be first would swap places forever."""
    other = "-A FORWARD -j OVERLAY-wan1\n-A FORWARD -j OVERLAY-overlay0\n"
    rules = CLOSED + ":OVERLAY-wan1 - [0:0]\n" + OURS + other + "-A OVERLAY-wan1 -i wan1 -j ACCEPT\n"

    assert places(filter_table(rules)) == []


@pytest.mark.parametrize(
    "text",
    [
        CLOSED + OURS,  # the jump was flushed
        CLOSED + ":OVERLAY-overlay0 - [0:0]\n-A FORWARD -j OVERLAY-overlay0\n",  # the chain was
        CLOSED
        + "".join(OURS.splitlines(keepends=True)[:-1])
        + "-A FORWARD -j OVERLAY-overlay0\n",  # one rule was
    ],
    ids=["jump", "chain", "rule"],
)
def test_what_was_flushed_is_found(text):
    assert places(filter_table(text)) == [("iptables", "ip", "FORWARD")]


def test_rule_of_others_before_ours_that_drops_it_is_overtaken():
    text = CLOSED + OURS + "-A FORWARD -i overlay0 -j DROP\n-A FORWARD -j OVERLAY-overlay0\n"

    assert places(filter_table(text)) == [("iptables", "ip", "FORWARD")]


def test_new_rules_replace_old_ones_and_those_no_longer_needed_go():
    stays = CLOSED + OURS + "-A FORWARD -j OVERLAY-overlay0\n"

    assert places(filter_table(stays), is_new=True) == [("iptables", "ip", "FORWARD")]
    assert places(filter_table(stays.replace("DROP", "ACCEPT")), is_new=True) == [("iptables", "ip", None)]
    assert places(filter_table(stays.replace("DROP", "ACCEPT"))) == []


def test_ours_are_found_by_their_name_and_those_of_other_interfaces_are_not():
    firewall = Firewall(tuple(filter_table(CLOSED + OURS + "-A FORWARD -j OVERLAY-overlay0\n")))

    (place,) = find_places(firewall, Wanted("overlay0"), is_new=True)
    assert (place.is_there, place.stale) == (True, (("FORWARD", (0,)),))
    assert find_places(firewall, Wanted("overlay1"), is_new=True) == []


def test_nft_rules_are_found_with_their_handles():
    ruleset = {
        "nftables": [
            {"chain": {"family": "inet", "table": "f", "name": "forward", "type": "filter", "hook": "forward", "prio": 0,
                       "policy": "drop"}},
            {"chain": {"family": "inet", "table": "f", "name": "overlay_overlay0"}},
            {"rule": {"family": "inet", "table": "f", "chain": "forward", "handle": 12,
                      "expr": [{"jump": {"target": "overlay_overlay0"}}]}},
        ]
    }  # fmt: skip

    (place,) = find_places(Firewall(tuple(nft.parse(json.loads(json.dumps(ruleset))))), WANTED, is_new=False)

    assert (place.jumps_from, place.stale, place.versions) == ("forward", (("forward", (12,)),), (4, 6))


def test_names_of_chains_are_such_as_the_programs_take():
    assert chain_name("x" * 15, "iptables") == "OVERLAY-" + "x" * 15
    assert chain_name("a.b-c_d", "nft") == "overlay_ax2ebx2dc_d"
