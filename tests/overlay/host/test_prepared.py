from __future__ import annotations

import contextlib
from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network

import pytest

from overlay.errors import HostError
from overlay.host.plan import DeviceState, HostPlan
from overlay.host.prepared import Prepared, describe_lack
from overlay.host.tun import open_tun
from tests.netns.topology import wait_until


def networks(*texts):
    return tuple(ip_network(text) for text in texts)


PLAN = HostPlan(
    1420,
    (ip_interface("10.244.1.0/32"), ip_interface("fd00:244:1::/128")),
    networks("10.244.0.0/16", "fd00:244::/32"),
)
GOOD = DeviceState(
    True, 1420, frozenset({ip_address("10.244.1.0"), ip_address("fd00:244:1::")}), frozenset(PLAN.routes)
)


def test_device_that_is_as_planned_lacks_nothing():
    assert describe_lack("overlay0", PLAN, GOOD) is None


@pytest.mark.parametrize(
    "fields",
    [
        {"mtu": 1280},
        {"networks": frozenset(networks("10.0.0.0/8", "::/0"))},
        {"addresses": GOOD.addresses | {ip_address("172.16.0.1")}},
    ],
)
def test_more_than_is_planned_is_fine(fields):
    assert describe_lack("overlay0", PLAN, replace(GOOD, **fields)) is None


@pytest.mark.parametrize(
    ("fields", "problem", "command"),
    [
        ({"is_up": False}, "is down", "ip link set overlay0 up"),
        ({"mtu": 1500}, "has an MTU of 1500, which is more than 1420", "ip link set overlay0 mtu 1420"),
        (
            {"addresses": frozenset({ip_address("10.244.1.0")})},
            "has no address fd00:244:1::",
            "ip address add fd00:244:1::/128 dev overlay0",
        ),
        (
            {"networks": frozenset(networks("10.244.0.0/17", "fd00:244::/32"))},
            "has no route for 10.244.0.0/16",
            "ip route add 10.244.0.0/16 dev overlay0",
        ),
    ],
)
def test_what_is_missing_is_said_with_the_command(fields, problem, command):
    assert describe_lack("overlay0", PLAN, replace(GOOD, **fields)) == (
        f"interface overlay0 {problem}, and this agent has no CAP_NET_ADMIN to change that: have root run `{command}`"
    )


MAC = bytes([2, 0, 0, 0, 0, 7])


@pytest.mark.parametrize("mac", [None, bytes([2, 0, 0, 0, 0, 8])])
def test_a_tap_with_another_ethernet_address_is_said_with_the_command(mac):
    said = describe_lack("overlay0", replace(PLAN, mac=MAC), replace(GOOD, mac=mac))

    assert "has another Ethernet address than 02:00:00:00:00:07, which its peers know" in said
    assert "`ip link set overlay0 address 02:00:00:00:00:07`" in said
    assert describe_lack("overlay0", replace(PLAN, mac=MAC), replace(GOOD, mac=MAC)) is None


@pytest.mark.netns
def test_the_ethernet_address_of_a_real_tap_is_looked_at(lab):
    host = lab.namespace("host")
    host.run("ip", "tuntap", "add", "overlay0", "mode", "tap")
    host.run("ip", "link", "set", "overlay0", "up", "address", "02:00:00:00:00:07")
    with (
        host.entered(),
        contextlib.closing(open_tun("overlay0", is_tap=True)) as device,
        contextlib.closing(Prepared("overlay0", device.index)) as made,
    ):
        made.apply(HostPlan(1500, mac=MAC))

        assert made.lacking is None


def test_address_of_a_point_to_point_link_is_asked_for_with_its_far_end():
    plan = replace(PLAN, far_ends=(ip_address("10.244.2.0"),))

    said = describe_lack("overlay0", plan, replace(GOOD, addresses=frozenset()))

    assert (
        "ip address add 10.244.1.0 peer 10.244.2.0 dev overlay0 && ip address add fd00:244:1::/128 dev"
        in said
    )


def test_many_routes_are_named_by_a_few():
    plan = replace(PLAN, routes=tuple(ip_network(f"10.{number}.0.0/16") for number in range(100)))

    said = describe_lack("overlay0", plan, GOOD)

    assert "10.4.0.0/16 and 95 more, and this agent" in said
    assert said.count("ip route add") == 5


def test_routes_past_our_own_datagrams_cannot_be_made_by_a_command():
    plan = replace(PLAN, policy_routes=networks("0.0.0.0/0"))

    said = describe_lack("overlay0", plan, GOOD)

    assert said.startswith(
        "interface overlay0 has no route for 0.0.0.0/0, which contains endpoints of peers: "
    )
    led = replace(GOOD, networks=GOOD.networks | set(networks("0.0.0.0/0")))
    assert describe_lack("overlay0", plan, led) is None


@pytest.fixture
def prepared(lab):
    """A device that is up, and the host."""
    host = lab.namespace("host")
    host.run("ip", "tuntap", "add", "overlay0", "mode", "tun")
    host.run("ip", "link", "set", "overlay0", "up")
    with host.entered(), contextlib.closing(open_tun("overlay0")) as device:
        made = Prepared("overlay0", device.index)
        # The kernel notes a little later that a device which is open can carry packets.
        wait_until(lambda: "state UP" in host.run("ip", "link", "show", "overlay0"), what="overlay0 to be up")
        with contextlib.closing(made):
            yield made, host


@pytest.mark.netns
def test_real_device_is_looked_at_and_left_alone(prepared):
    device, host = prepared
    before = host.dump()

    device.apply(PLAN)
    device.withdraw()

    assert host.dump() == before
    commands = device.lacking.partition("`")[2].partition("`")[0]
    assert commands.count("ip ") == 5
    host.run("sh", "-c", commands)
    device.apply(PLAN)
    assert device.lacking is None


@pytest.mark.netns
def test_routes_of_any_table_count(prepared):
    device, host = prepared
    for route in ("10.244.0.0/16 table 99", "default table 98"):
        host.run("ip", "route", "add", *route.split()[:1], "dev", "overlay0", *route.split()[1:])

    device.apply(HostPlan(1500, (), networks("10.244.0.0/16", "192.168.0.0/16")))

    assert device.lacking is None


@pytest.mark.netns
def test_device_that_is_down_is_refused(prepared):
    device, host = prepared
    host.run("ip", "link", "set", "overlay0", "down")

    with pytest.raises(
        HostError, match=r"^interface overlay0 is down, .* have root run `ip link set overlay0 up mtu 1420"
    ):
        device.apply(PLAN)


@pytest.mark.netns
def test_plan_is_cut_to_what_can_be_had(prepared):
    device, host = prepared
    host.run("ip", "link", "set", "overlay0", "mtu", "1300")

    fitted = device.fit(replace(PLAN, fwmark=51820), None)

    assert (fitted.mtu, fitted.fwmark) == (1300, None)
    assert device.fit(replace(PLAN, mtu=1280), 7) == replace(PLAN, mtu=1280, fwmark=7)
