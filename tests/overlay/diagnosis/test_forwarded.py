"""Forwarded packets are examined, too: rules may direct only those past the tunnel."""

from __future__ import annotations

import dataclasses
from ipaddress import ip_network
from types import SimpleNamespace

import pytest

from overlay.diagnosis.forwarded import check_forwarded
from overlay.host.netlink.fib import RouteMatch
from overlay.host.netlink.route_lookup import RouteOutcome, RouteResult
from tests.overlay.diagnosis.examples import facts

DEVICE, LO = 7, 1  # the subnets of this host are behind lo, whose name any kernel knows
OUT, BACK = (
    RouteResult(RouteOutcome.OUT, "overlay0", table=254),
    RouteResult(RouteOutcome.OUT, "lo", table=254),
)


def found(out=OUT, back=BACK, *, led=DEVICE, **fields):
    """Return the findings if packets from behind this host leave by *out*, and those to there come by *back*.

    *led* is the interface that its own packets to peers leave by.
    """

    def match(address, fwmark=None):
        index = LO if address in ip_network("10.244.1.0/24") else led
        return RouteMatch(ip_network("10.244.0.0/16"), index, 254, None, is_local=False)

    ways = {"lo": out, "overlay0": back}
    made = facts(**fields)
    routes = SimpleNamespace(match=match)
    return list(
        check_forwarded(dataclasses.replace(made, routes=routes, way=lambda question: ways[question.enters]))
    )


def test_packets_in_both_directions_that_go_where_they_should_are_no_finding():
    assert found() == []


def test_a_rule_that_leads_what_is_forwarded_past_the_tunnel_is_found():
    (finding,) = found(out=RouteResult(RouteOutcome.OUT, "eth0", table=77))

    assert finding.name == "route_taken"
    assert finding.problem == (
        "a routing rule of this host sends packets from 10.244.1.1 to 10.244.2.1 that come in by lo out by eth0, by "
        "table 77, past the tunnel and unencrypted"
    )
    assert "see `ip rule`" in finding.remedy


def test_a_rule_that_leads_what_peers_send_elsewhere_is_found():
    (finding,) = found(back=RouteResult(RouteOutcome.OUT, "eth0", table=77))

    assert finding.name == "route_taken"
    assert "from 10.244.2.1 to 10.244.1.1 that come in by overlay0 out by eth0" in finding.problem
    assert finding.problem.endswith("and not by lo")


@pytest.mark.parametrize(
    "outcome", [RouteOutcome.DISCARDED, RouteOutcome.PROHIBITED, RouteOutcome.REVERSE_PATH]
)
def test_a_rule_that_rejects_what_is_forwarded_is_found(outcome):
    (finding,) = found(out=RouteResult(outcome))

    assert finding.name == "route_refused"
    assert "rejects packets from 10.244.1.1 to 10.244.2.1 that come in by lo" in finding.problem


@pytest.mark.parametrize(
    "fields",
    [
        {"led": 2},  # the host's own packets go astray, too, which check_routes() reports
        {"lacking": "no address"},
        {"is_set_up": False},
    ],
)
def test_what_other_checks_tell_is_not_told_twice(fields):
    assert found(out=RouteResult(RouteOutcome.OUT, "eth0", table=77), **fields) == []


def test_a_host_that_does_not_forward_is_told_by_its_settings():
    assert found(out=RouteResult(RouteOutcome.UNREACHABLE), back=RouteResult(RouteOutcome.UNREACHABLE)) == []


def test_no_kernel_to_ask_is_no_finding():
    made = facts()

    assert list(check_forwarded(made)) == []
