from __future__ import annotations

from ipaddress import ip_network

import pytest

from overlay.diagnosis.subnets import check_subnets
from overlay.host.netlink.fib import Link, RouteMatch
from tests.overlay.diagnosis.examples import facts


def found(links, network=None, index=3, **given):
    known = facts(links=links, **given)
    route = None if network is None else RouteMatch(ip_network(network), index, 254, None, is_local=False)
    known.routes.match = lambda address, fwmark=None: route
    return [each.name for each in check_subnets(known)]


@pytest.mark.parametrize("way", [(None, 3), ("0.0.0.0/0", 3), ("10.244.0.0/16", 7)])
def test_subnet_that_leads_nowhere_is_found(way):
    assert found([], *way) == ["subnet_nowhere"]


@pytest.mark.parametrize(
    ("links", "way"),
    [
        (["10.244.1.0/24"], (None,)),
        (["10.244.1.128/25"], (None,)),
        (["10.244.0.0/16"], (None,)),
        ([], ("10.244.1.0/24", 3)),
    ],
)
def test_subnet_that_leads_somewhere_is_not_found(links, way):
    assert found([Link(ip_network(each), 3, 0) for each in links], *way) == []


def test_what_is_not_set_up_leads_nowhere_yet():
    assert found([], is_set_up=False) == []
