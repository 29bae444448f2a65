"""The kernel reports changed rules."""

from __future__ import annotations

import contextlib
import select

import pytest

from overlay.host.firewall.watch import RulesWatch

pytestmark = pytest.mark.netns


def test_changes_of_rules_are_told_and_nothing_else(lab):
    host = lab.namespace("host")
    with host.entered(), contextlib.closing(RulesWatch()) as watch:
        host.run("ip", "link", "add", "br1", "type", "bridge")
        assert not select.select([watch], [], [], 0)[0]

        for change in ("add table inet t", "flush ruleset"):
            host.run("nft", change)
            assert select.select([watch], [], [], 60)[0], change
            watch.drain()
            assert not select.select([watch], [], [], 0)[0]
