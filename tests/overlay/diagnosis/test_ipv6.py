from __future__ import annotations

from ipaddress import ip_network

import pytest

from overlay.diagnosis.ipv6 import check_ipv6
from overlay.host.plan import HostPlan
from tests.overlay.diagnosis.examples import facts

SWITCH = "ipv6/conf/overlay0/disable_ipv6"
PLAN = HostPlan(1420, routes=(ip_network("10.244.0.0/16"), ip_network("fd00:244::/32")))


def test_ipv6_that_is_switched_off_is_found_where_a_network_of_it_is_wanted():
    (finding,) = check_ipv6(facts(plan=PLAN, read={SWITCH: 1}))

    assert finding.name == "ipv6_disabled"
    assert "so fd00:244::/32 and other IPv6 networks" in finding.problem
    assert "`sysctl -w net.ipv6.conf.overlay0.disable_ipv6=0`" in finding.remedy


@pytest.mark.parametrize(
    "given",
    [
        {"plan": PLAN, "read": {SWITCH: 0}},
        {"plan": HostPlan(1420, routes=PLAN.routes[:1]), "read": {SWITCH: 1}},
        {"plan": PLAN, "read": {SWITCH: 1}, "is_set_up": False},
    ],
)
def test_nothing_is_found_where_it_is_on_or_not_wanted_or_not_set_up(given):
    assert not list(check_ipv6(facts(**given)))
