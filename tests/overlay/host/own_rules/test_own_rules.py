"""Rules in real packet filters, of both kinds: made, flushed by others, left by a killed agent, removed."""

from __future__ import annotations

import shutil

import pytest

from overlay.errors import HostError
from overlay.host.firewall.load import load
from overlay.host.own_rules.own_rules import OwnRules
from overlay.host.own_rules.wanted import Wanted
from tests.overlay.host.own_rules.test_wanted import wanted

pytestmark = [
    pytest.mark.netns,
    pytest.mark.skipif(
        any(shutil.which(each, path="/usr/sbin:/sbin") is None for each in ("iptables", "nft")),
        reason="iptables and nftables are not both installed",
    ),
]

WANTED = wanted("10.244.1.0/24", "fd00:244:1::/64", prefixes=("10.244.0.0/16", "fd00:244::/32"))
POLICY = "iptables -P FORWARD DROP"
DOCKER = f"{POLICY}; iptables -N DOCKER-USER; iptables -A DOCKER-USER -j RETURN; iptables -I FORWARD -j DOCKER-USER"
LEGACY = "iptables-legacy -P FORWARD DROP"
NFT = "nft 'add table inet f; add chain inet f forward { type filter hook forward priority 5; policy drop; }'"
EVERYTHING = f"{DOCKER}; ip6tables -P FORWARD DROP; {LEGACY}; {NFT}"


@pytest.fixture
def host(lab):
    made = lab.namespace("host")
    with made.entered():
        yield made


@pytest.fixture
def rules(tmp_path):
    return OwnRules("overlay0", tmp_path / "overlay0.rules")


def again(rules):
    """Return rules that do not know about earlier ones, like those of the next agent."""
    return OwnRules("overlay0", rules._saved)


def have(host, script):
    if "legacy" in script and host.completed("iptables-legacy", "-L").returncode:
        pytest.skip("this kernel has no iptables-legacy")
    host.run("sh", "-c", script)


def shown(host):
    """Return everything in the packet filters, except for counters."""
    programs = ("nft --stateless list ruleset", "iptables-save", "ip6tables-save", "iptables-legacy-save")
    lines = host.run("sh", "-c", "; ".join(programs), check=False).splitlines()
    return [
        line.partition(" [")[0].replace("counter packets 0 bytes 0 ", "") for line in lines if line[:1] != "#"
    ]


@pytest.mark.parametrize(
    ("script", "places"),
    [
        ("true", []),
        (POLICY, ["ip filter FORWARD"]),
        (DOCKER, ["ip filter DOCKER-USER"]),
        (LEGACY, ["ip filter FORWARD"]),
        (NFT, ["inet f forward"]),
        (EVERYTHING, ["inet f forward", "ip filter DOCKER-USER", "ip6 filter FORWARD", "ip filter FORWARD"]),
    ],
    ids=["nothing", "policy", "docker", "legacy", "nft", "everything"],
)
def test_rules_are_made_once_and_go_without_a_trace(host, rules, script, places):
    have(host, script)
    before = shown(host)

    assert rules.hold(WANTED) == ["inet overlay_overlay0.nat", *places]
    assert rules.hold(WANTED) == []
    assert rules.close() == [each.rpartition(" ")[0] for each in places]
    assert shown(host) == before
    assert not rules.is_left


@pytest.mark.parametrize(
    "flush",
    [
        "iptables -F",
        "iptables -F DOCKER-USER; iptables -A DOCKER-USER -j RETURN",
        "iptables -F OVERLAY-overlay0",
        "iptables-legacy -F",
        "nft flush chain inet f forward",
        "nft flush chain inet f overlay_overlay0",
        "nft flush table inet overlay_overlay0.nat",
        "nft delete table inet overlay_overlay0.nat",
        "ip6tables -F; iptables -F; iptables -X",
    ],
)
def test_what_others_flush_is_put_back(host, rules, flush):
    have(host, EVERYTHING)
    rules.hold(WANTED)
    before = sorted(shown(host))

    host.run("sh", "-c", flush)
    assert rules.hold(WANTED) != []

    if "X" not in flush and flush != "iptables -F":  # else what was flushed of others is for them to put back
        assert sorted(shown(host)) == before
    assert rules.hold(WANTED) == []


def test_docker_that_starts_later_is_opened_then(host, rules):
    rules.hold(WANTED)

    have(host, DOCKER)

    assert rules.hold(WANTED) == ["ip filter DOCKER-USER"]


@pytest.mark.parametrize("next_wanted", [WANTED, wanted("10.244.9.0/24"), Wanted("overlay0")])
def test_what_a_killed_agent_left_is_replaced_or_removed(host, rules, next_wanted):
    have(host, EVERYTHING)
    before = shown(host)
    rules.hold(WANTED)
    left = shown(host)

    follower = again(rules)
    follower.hold(next_wanted)

    text = "\n".join(shown(host))
    assert ("10.244.1.0/24" in text) == (next_wanted == WANTED)
    assert ("10.244.9.0/24" in text) == ("10.244.9.0/24" in str(next_wanted))
    if next_wanted == WANTED:
        assert sorted(shown(host)) == sorted(left)
    follower.close()
    assert shown(host) == before


def test_removal_needs_no_memory(host, rules):
    have(host, EVERYTHING)
    before = shown(host)
    rules.hold(WANTED)

    again(rules).close()

    assert shown(host) == before


def test_two_agents_leave_each_other_in_peace(host, rules, tmp_path):
    have(host, EVERYTHING)
    other = OwnRules("wan1", tmp_path / "wan1.rules")
    others = Wanted("wan1", WANTED.subnets, WANTED.prefixes, masquerade=True, forward=True)

    rules.hold(WANTED)
    other.hold(others)
    assert (rules.hold(WANTED), other.hold(others)) == ([], [])
    rules.close()

    assert other.hold(others) == []
    assert "OVERLAY-overlay0" not in "\n".join(shown(host))


def test_nothing_is_run_where_nothing_is_wanted(tmp_path):
    def fail(*_):
        raise AssertionError

    rules = OwnRules("overlay0", tmp_path / "overlay0.rules", fail, fail)

    assert rules.hold(Wanted("overlay0")) == []
    assert rules.close() == []


def test_program_that_is_missing_is_named_with_its_package_and_the_rest_is_done(host, rules):
    have(host, POLICY)

    def without_nft(command, script):
        load(("no-such-nft", *command[1:]) if command[0] == "nft" else command, script)

    lame = OwnRules("overlay0", rules._saved, carry_out=without_nft)
    with pytest.raises(
        HostError, match=r"^masquerading cannot be set up: .*is not installed: install nftables$"
    ):
        lame.hold(WANTED)

    assert "-A FORWARD -j OVERLAY-overlay0" in host.run("iptables-save")
    assert rules.hold(WANTED) != []
    assert rules.hold(WANTED) == []


def test_refusal_says_what_the_program_said(host, rules):
    """A table with an owner, such as firewalld's, cannot be changed by others."""

    def refuse(command, script):
        load(("nft", "-f", "-"), "nonsense")

    with pytest.raises(
        HostError, match=r"refused the rules \(.*syntax error.*\): see whether something else"
    ):
        OwnRules("overlay0", rules._saved, carry_out=refuse).hold(WANTED)


def test_no_rule_is_made_that_nobody_would_remove(host, tmp_path):
    rules = OwnRules("overlay0", tmp_path / "absent" / "overlay0.rules")

    with pytest.raises(HostError, match="no rules are made, because nobody would remove them"):
        rules.hold(WANTED)
    assert host.run("nft", "list", "ruleset") == ""
