"""The input of the programs, literally; test_own_rules has them execute it."""

from __future__ import annotations

from overlay.host.firewall.rules import Chain, Rule, Table, Verdict
from overlay.host.own_rules.places import RulePlace
from overlay.host.own_rules.scripts import replace_table, rewrite
from overlay.host.own_rules.wanted import Wanted
from tests.overlay.host.own_rules.test_wanted import networks

WANTED = Wanted("overlay0", forward=True)
NOTHING = Wanted("overlay0")


def table(program, family="ip", name="filter"):
    return Table(
        family, name, program, {"FORWARD": Chain("FORWARD", [Rule(())], "forward", policy=Verdict.DROP)}
    )


def test_iptables_empties_the_chain_takes_old_jumps_out_and_jumps_first():
    place = RulePlace(
        table("iptables-legacy"), "OVERLAY-overlay0", "DOCKER-USER", True, (("FORWARD", (0, 0)),)
    )

    assert rewrite(place, WANTED) == (
        ("iptables-legacy-restore", "--noflush", "--wait=5"),
        (
            "*filter\n:OVERLAY-overlay0 - [0:0]\n"
            "-D FORWARD -j OVERLAY-overlay0\n-D FORWARD -j OVERLAY-overlay0\n"
            "-A OVERLAY-overlay0 -i overlay0 -o overlay0 -j ACCEPT\n"
            "-I DOCKER-USER 1 -j OVERLAY-overlay0\nCOMMIT\n"
        ),
    )


def test_iptables_removes_it_all():
    place = RulePlace(table("iptables"), "OVERLAY-overlay0", None, True, (("FORWARD", (0,)),))

    assert rewrite(place, NOTHING).text == (
        "*filter\n-D FORWARD -j OVERLAY-overlay0\n-F OVERLAY-overlay0\n-X OVERLAY-overlay0\nCOMMIT\n"
    )


def test_nft_says_each_rule_once_for_both_families():
    place = RulePlace(table("nft", "inet", "f"), "overlay_overlay0", "forward", False, (("forward", (7,)),))

    assert rewrite(place, WANTED) == (
        ("nft", "-f", "-"),
        (
            "add chain inet f overlay_overlay0\nflush chain inet f overlay_overlay0\n"
            "delete rule inet f forward handle 7\n"
            'add rule inet f overlay_overlay0 iifname "overlay0" oifname "overlay0" accept\n'
            "insert rule inet f forward jump overlay_overlay0\n"
        ),
    )


def test_table_takes_the_place_of_one_that_may_be_there():
    wanted = Wanted("overlay0", networks("10.244.1.0/24"), masquerade=True)

    text = replace_table("t.nat", wanted.table).text

    assert text.startswith(
        "add table inet t.nat\ndelete table inet t.nat\ntable inet t.nat {\n\tchain within {"
    )
