"""Counting what keeps packets from leaving when an agent is gone, on a real kernel."""

from __future__ import annotations

import pytest

from overlay.host import guards
from overlay.host.ownership import PROTOCOL, number_of

pytestmark = pytest.mark.netns


@pytest.fixture
def host(lab):
    return lab.namespace("guarded")


def add(host, prefix, interface="overlay0", kind="unreachable", protocol=PROTOCOL, table="main"):
    where = [prefix, "metric", str(number_of(interface)), "proto", str(protocol), "table", str(table)]
    family = "-6" if ":" in prefix else "-4"
    how = [kind, *where] if kind == "unreachable" else [*where, "dev", "lo"]
    host.run("ip", family, "route", "add", *how)


def counted(host, interface="overlay0"):
    with host.entered():
        return guards.count(interface)


def test_routes_that_an_agent_left_are_counted_in_both_families_and_all_tables(host):
    host.run("ip", "link", "set", "lo", "up")
    assert counted(host) == 0

    add(host, "10.244.0.0/16")
    add(host, "fd00:244::/32")
    add(host, "0.0.0.0/0", table=number_of("overlay0"))

    assert counted(host) == 3


def test_routes_of_others_are_not_counted(host):
    host.run("ip", "link", "set", "lo", "up")
    add(host, "10.244.0.0/16", interface="overlay1")
    add(host, "10.245.0.0/16", protocol=4)
    add(host, "10.246.0.0/16", kind="unicast")
    host.run("ip", "route", "add", "unreachable", "10.247.0.0/16", "metric", "77", "proto", str(PROTOCOL))

    assert (counted(host), counted(host, "overlay1")) == (0, 1)
