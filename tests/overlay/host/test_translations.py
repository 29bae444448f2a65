"""The table of translations: made, replaced, removed, and taken over from a killed agent; by the real nft."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from overlay.errors import HostError
from overlay.host import nftables
from overlay.host.firewall import load
from overlay.host.translations import Translations, table_name
from overlay.services.delivery import plan_delivery
from peers import toml
from tests.overlay.services.test_delivery import PEERS, WEB, WEB4

pytestmark = pytest.mark.netns
RULES = "\tchain translate {\n\t\ttype nat hook prerouting priority -100; policy accept;\n\t}\n"


@pytest.fixture
def host(lab):
    return lab.namespace("host")


def tables(host):
    return host.run("nft", "list", "tables")


@pytest.mark.parametrize(
    ("interface", "name"),
    [("overlay0", "overlay_overlay0"), ("a.b-c_d", "overlay_ax2ebx2dc_d"), ("\u00e9", "overlay_xe9")],
)
def test_name_of_the_table_is_one_that_nft_takes(interface, name):
    assert table_name(interface) == name


def test_rules_are_made_replaced_and_removed(host):
    with host.entered():
        held = Translations("overlay0")
        held.hold(RULES)
        assert "chain translate" in host.run("nft", "list", "table", "inet", "overlay_overlay0")
        held.hold(RULES.replace("translate", "other"))
        shown = host.run("nft", "list", "table", "inet", "overlay_overlay0")
        assert "chain other" in shown
        assert "translate" not in shown
        held.hold("")
        assert tables(host) == ""
        held.hold(RULES)
        held.close()
        held.close()
        assert tables(host) == ""


@pytest.mark.parametrize("rules", ["", RULES])
def test_what_a_killed_agent_left_is_replaced_or_removed(host, rules):
    with host.entered():
        Translations("overlay0").hold(RULES.replace("translate", "other"))
        other = Translations("wan1")
        other.hold(RULES)
        Translations("overlay0").hold(rules)
        assert "chain other" not in host.run("nft", "list", "ruleset")
        assert ("overlay_overlay0" in tables(host)) == bool(rules)
        assert "overlay_wan1" in tables(host)


def test_rules_that_nft_refuses_leave_those_before_in_force(host):
    with host.entered():
        held = Translations("overlay0")
        held.hold(RULES)
        with pytest.raises(HostError, match="refused the rules for services"):
            held.hold("chain x { nonsense }\n")
        assert "chain translate" in host.run("nft", "list", "ruleset")
        held.close()
        assert tables(host) == ""


def test_same_rules_are_not_made_again():
    scripts = []
    held = Translations("overlay0", scripts.append)
    held.hold(RULES)
    held.hold(RULES)
    assert len(scripts) == 1


def test_without_nft_the_error_names_what_to_install(monkeypatch):
    monkeypatch.setattr(load, "FOLDERS", ("/nonexistent",))
    with pytest.raises(HostError, match="install nftables"):
        Translations("overlay0").hold(RULES)


def test_nothing_to_remove_is_no_error_without_nftables(monkeypatch):
    def refuse(_name):
        raise OSError(93, "Protocol not supported")

    monkeypatch.setattr(nftables, "remove_table", refuse)
    held = Translations("overlay0", lambda _script: None)
    held.hold("")
    held.hold(RULES)
    with pytest.raises(HostError, match="run `nft delete table inet overlay_overlay0`"):
        held.hold("")


def test_nft_takes_the_rules_of_services_of_every_kind(host):
    servers = """{ peer = "web1", port = 8080 }, { peer = "web1", address = "10.244.2.7", port = 81 }"""
    clear = PEERS.replace("[peers.web1]", '[peers.web1]\nencapsulation = "ipip"')
    other = """
[services.other]
address = "2001:db8:9::81"
servers = [{ peer = "web1", address = "fd00:244:2::7", port = 82 }, "web1"]
reply = "director"
"""
    table = toml.parse(clear + WEB4.replace('"web1"', servers) + other, Path("peers.toml"))
    rules = plan_delivery(table, table.peers["web1"], "overlay0", 1420, 1_000_000_000).rules
    with host.entered():
        Translations("overlay0").hold(rules)
    shown = host.run("nft", "list", "table", "inet", "overlay_overlay0")
    assert set(re.findall(r"chain (\w+)", shown)) == {
        "apart", "translate", "translate_own", "unmark", "answer", "answer_own", "hairpin", "clamp",
    }  # fmt: skip


LIMITS = "\tchain towards_tun {\n\t\ttype filter hook forward priority 0; policy accept;\n\t}\n"


def test_limits_are_held_beside_the_rules_and_without_any(host):
    with host.entered():
        held = Translations("overlay0")
        assert held.hold(RULES, LIMITS) == ""
        shown = host.run("nft", "list", "ruleset")
        assert "chain translate" in shown
        assert "chain towards_tun" in shown
        assert held.hold("", LIMITS) == ""
        assert "translate" not in host.run("nft", "list", "ruleset")
        assert held.hold("") == ""
        assert tables(host) == ""


def test_limits_that_nft_refuses_are_done_without_and_the_reason_is_told_once(host):
    with host.entered():
        held = Translations("overlay0")
        assert "refused the rules" in held.hold(RULES, "chain x { nonsense }\n")
        assert held.hold(RULES, "chain x { nonsense }\n") == ""
        assert "chain translate" in host.run("nft", "list", "ruleset")


def test_director_does_without_nft(monkeypatch):
    monkeypatch.setattr(load, "FOLDERS", ("/nonexistent",))
    held = Translations("overlay0")

    assert "install nftables" in held.hold("", LIMITS)
    with pytest.raises(HostError, match="install nftables"):
        held.hold(RULES, LIMITS)


def test_nft_takes_the_limits_of_services_of_every_kind(host):
    other = """
[services.all]
address = ["203.0.113.80", "2001:db8:9::80"]
directors = ["lb"]
servers = ["web1"]
new_flows_per_second = 1
"""
    table = toml.parse(PEERS + WEB + "new_flows_per_second = 10000000\n" + other, Path("peers.toml"))
    with host.entered():
        limits = plan_delivery(table, table.peers["lb"], "overlay0", 1420, 1_000_000_000).limits
        assert Translations("overlay0").hold("", limits) == ""
