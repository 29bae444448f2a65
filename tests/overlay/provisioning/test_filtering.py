"""When our rules are examined: at the start, when others change filters, when the peers file changes,
and not forever.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from overlay.config import Node, Options
from overlay.errors import HostError
from overlay.host.own_rules.own_rules import OwnRules
from overlay.host.own_rules.wanted import Wanted
from overlay.provisioning.filtering import Filtering, wanted_of
from peers.stores import Location
from tests.overlay.provisioning.setup_bench import PRIVATE
from tests.peers.examples import peer, table
from tests.simulated_time import waiting_for_threads

OPTIONS = Options(Location.parse("/nowhere"), Path("/nowhere"), "overlay0")
PATIENCE = 60.0


def node(*subnets, **network):
    paris = peer("paris", *subnets or ("10.244.1.0/24",), public_key=PRIVATE.public)
    return Node(PRIVATE, table(paris, peer("tokyo", "10.244.2.0/24"), **network), paris, {})


class Rules:
    """Rules that record what they should contain."""

    def __init__(self):
        self.held, self.errors, self.changes = [], [], [["somewhere"]]

    def hold(self, wanted):
        self.held.append(wanted)
        if self.errors:
            raise self.errors.pop(0)
        return self.changes.pop(0) if self.changes else []


class On:
    """Rules of *host*, whatever thread uses them: trio keeps threads of earlier tests."""

    def __init__(self, host, rules):
        self._host, self._rules = host, rules

    def hold(self, wanted):
        with self._host.entered():
            return self._rules.hold(wanted)


def test_options_and_network_ask_alike():
    for asking in (
        wanted_of(node(masquerade=True, forward=True), OPTIONS),
        wanted_of(node(), replace(OPTIONS, masquerade=True, forward=True)),
    ):
        assert (asking.masquerade, asking.forward) == (True, True)
        assert asking.subnets == (ip_network("10.244.1.0/24"),)
    assert wanted_of(node(), OPTIONS) == Wanted(
        "overlay0", (ip_network("10.244.1.0/24"),), wanted_of(node(), OPTIONS).prefixes
    )


def test_host_by_itself_has_no_subnet_to_open():
    assert wanted_of(node("10.244.1.1/32"), OPTIONS).subnets == ()


def test_what_cannot_be_done_is_found_and_stops_nothing():
    rules = Rules()
    rules.errors.append(HostError("no"))

    filtering = Filtering(rules, replace(OPTIONS, forward=True), lambda: None)
    filtering.set_up(node())

    assert [str(each) for each in filtering.findings] == ["no"]


async def until(condition):
    with trio.fail_after(PATIENCE):
        while not condition():
            await trio.sleep(0.01)


def run(filtering, story):
    async def main():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(filtering.keep)
            await story()
            nursery.cancel_scope.cancel()

    simulated = MockClock(autojump_threshold=0)
    with waiting_for_threads(simulated):
        trio.run(main, clock=simulated)


def test_without_a_wish_nobody_looks():
    rules = Rules()
    filtering = Filtering(rules, OPTIONS, lambda: None)
    filtering.set_up(node())

    async def story():
        filtering.adopt(node("10.244.1.0/24", "10.244.9.0/24"))
        await trio.sleep(0.5)

    run(filtering, story)
    assert not any(each.forward or each.masquerade for each in rules.held)


def test_rules_that_others_removed_before_they_were_watched_are_back():
    rules = Rules()
    filtering = Filtering(rules, replace(OPTIONS, forward=True), lambda: None)
    filtering.set_up(node())

    run(filtering, lambda: until(lambda: len(rules.held) == 2))


def test_peers_file_that_asks_is_followed_and_so_is_one_that_no_longer_does():
    rules, told = Rules(), []
    rules.changes = [["somewhere"]] * 9
    filtering = Filtering(rules, OPTIONS, lambda: told.append(1))
    filtering.set_up(node())

    async def story():
        filtering.adopt(node(forward=True))
        await until(lambda: rules.held[-1].forward)
        filtering.adopt(node())
        await until(lambda: not rules.held[-1].forward)

    run(filtering, story)
    assert told


def test_ports_are_published_at_once_and_what_is_refused_is_not_tried_again():
    rules = Rules()
    filtering = Filtering(rules, OPTIONS, lambda: None)
    filtering.set_up(node())

    async def story():
        await filtering.publish("one")
        assert rules.held[-1].published == "one"
        filtering.adopt(node(forward=True))
        await until(lambda: rules.held[-1].forward)
        assert rules.held[-1].published == "one"
        rules.errors.append(HostError("no"))
        with pytest.raises(HostError):
            await filtering.publish("two")
        await until(lambda: rules.held[-1].published == "one")

    run(filtering, story)
    assert filtering.findings == []


@pytest.mark.netns
@pytest.mark.skipif(shutil.which("nft", path="/usr/sbin:/sbin") is None, reason="nftables is not installed")
def test_rules_that_are_flushed_are_back(lab, tmp_path):
    host, told = lab.namespace("host"), []
    with host.entered():
        rules = OwnRules("overlay0", tmp_path / "overlay0.rules")
        filtering = Filtering(
            On(host, rules), replace(OPTIONS, masquerade=True, forward=True), lambda: told.append(1)
        )
        filtering.set_up(node())
        before = host.run("nft", "list", "ruleset")
        assert "masquerade" in before

        async def story():
            await trio.testing.wait_all_tasks_blocked()
            host.run("nft", "flush", "ruleset")
            await until(lambda: host.run("nft", "list", "ruleset") == before)
            host.run(
                "nft",
                "add table inet f; add chain inet f c { type filter hook forward priority 0; policy drop; }",
            )
            await until(lambda: "jump overlay_overlay0" in host.run("nft", "list", "ruleset"))

        run(filtering, story)
        assert told
        rules.close()
        assert "overlay" not in host.run("nft", "list", "ruleset")
