"""Changes by others, which are noticed and distinguished from our own."""

from __future__ import annotations

import dataclasses
from ipaddress import ip_network

import pytest

from overlay.host.ownership import number_of
from tests.overlay.host.netlink.agents import FULL, OVERLAY, Agent, without_ages

pytestmark = pytest.mark.netns

MANY = ip_network("10.244.0.0/20")  # a thousand networks of four addresses


def test_link_taken_down_by_somebody_is_noticed_and_repaired(host):
    with host.entered(), Agent() as agent:
        agent.routing.apply(OVERLAY)
        watch = agent.routing.watch()
        before = without_ages(host.dump())

        host.run("ip", "link", "set", "overlay0", "down")
        assert (watch.drain(), watch.take_touched(), watch.take_touched()) == (True, True, False)
        agent.routing.read_back()
        agent.routing.apply(OVERLAY)

        assert without_ages(host.dump()) == before
        assert not our_flush(watch)
        watch.close()


def our_flush(watch):
    """Drain twice: the kernel reports a repair of addresses like a change by somebody else, but only once."""
    watch.drain()
    return watch.drain()


def test_watch_tells_changes_of_others_from_our_own(host):
    with host.entered(), Agent() as agent:
        agent.routing.apply(OVERLAY)
        watch = agent.routing.watch()

        agent.routing.apply(FULL)
        assert not watch.drain()
        # Two thousand notifications, which would not fit into the buffer of the watch
        agent.routing.apply(dataclasses.replace(FULL, routes=tuple(MANY.subnets(new_prefix=30))))
        assert (watch.drain(), watch.take_loss()) == (False, False)

        host.run("ip", "route", "add", "10.9.0.0/16", "via", "192.0.2.254")
        assert watch.drain()

        host.run("ip", "address", "add", "192.0.2.9/24", "dev", "eth0")
        assert watch.drain()

        host.run("ip", "link", "set", "eth0", "mtu", "1400")
        assert watch.drain()

        assert not watch.take_touched()
        assert not watch.drain()
        watch.close()


def test_watch_tells_of_what_may_have_taken_routes_of_ours(host):
    with host.entered(), Agent() as agent:
        agent.routing.apply(OVERLAY)
        watch = agent.routing.watch()
        number, tun = str(number_of("overlay0")), ("dev", "overlay0")

        for command in (
            ("ip", "route", "delete", "10.244.0.0/16", *tun),
            ("ip", "route", "replace", "blackhole", "10.244.0.0/16", "metric", number),
            ("ip", "address", "delete", "10.244.1.0/32", *tun),  # its routes go unreported
        ):
            host.run(*command)
            assert (watch.drain(), watch.take_touched()) == (True, True), command
        assert "src 10.244.1.0" not in host.run("ip", "route")
        watch.close()


@pytest.mark.parametrize(
    "change",
    [["mtu", "9000"], ["mtu", "1300"], ["down"], ["name", "vpn7"]],
    ids=lambda change: change[0],
)
def test_watch_tells_that_our_own_interface_is_not_as_it_was_set_up(host, change):
    """Before, an MTU set by hand remained until something else changed, and a new name was noticed as late."""
    with host.entered(), Agent() as agent:
        agent.routing.apply(OVERLAY)
        watch = agent.routing.watch()
        agent.routing.apply(dataclasses.replace(OVERLAY, mtu=1400))
        host.run("ip", "link", "set", "overlay0", "txqueuelen", "500")  # nobody's business
        assert not watch.drain()

        host.run("ip", "link", "set", "overlay0", *change)

        assert watch.drain()
        if change[0] == "mtu":
            agent.routing.read_back()
            agent.routing.apply(OVERLAY)
            assert "mtu 1420" in host.run("ip", "link", "show", "overlay0")
            assert not watch.drain()
        watch.close()


def test_watch_tells_that_somebody_took_what_keeps_packets_from_leaving(host):
    """Only changes that leave the host open are urgent: behind any other route of ours, the unreachable
    twin remains.
    """
    with host.entered(), Agent() as agent:
        agent.routing.apply(FULL)
        watch = agent.routing.watch()
        agent.routing.apply(OVERLAY)
        agent.routing.apply(FULL)
        host.run("ip", "route", "add", "unreachable", "10.9.0.0/16")
        host.run("ip", "route", "delete", "unreachable", "10.9.0.0/16")
        host.run("ip", "route", "flush", "dev", "overlay0")
        assert (watch.drain(), watch.take_loss()) == (True, False)

        for command in (
            ("ip", "-4", "route", "flush", "table", "all", "type", "unreachable"),
            ("ip", "-6", "route", "flush", "table", "all", "type", "unreachable"),
            ("ip", "rule", "flush"),
        ):
            host.run(*command)
            assert (watch.drain(), watch.take_loss(), watch.take_loss()) == (True, True, False), command
        watch.close()
