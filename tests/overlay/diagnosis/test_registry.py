from __future__ import annotations

import errno
from ipaddress import ip_network
from types import SimpleNamespace

import pytest

from overlay.config import Node
from overlay.crypto.keys import PrivateKey
from overlay.diagnosis.facts import Facts
from overlay.diagnosis.finding import Finding
from overlay.diagnosis.registry import diagnose
from overlay.errors import HostError
from overlay.host.netlink.fib import Match
from overlay.host.plan import HostPlan
from overlay.host.tun import Offloads
from tests.peers.examples import peer, table

PRIVATE = PrivateKey(bytes(range(32)))


def facts(*, offloads=(True, True), udp=(), **fields):
    paris = peer("paris", "10.244.1.0/24", public_key=PRIVATE.public)
    node = Node(PRIVATE, table(paris, peer("tokyo", "10.244.2.0/24")), paris, {})
    device = SimpleNamespace(
        name="overlay0", index=7, offloads=Offloads(tcp=offloads[0], udp=offloads[1]), is_persistent=False
    )
    routes = SimpleNamespace(
        route_index=lambda address, fwmark=None: 7,
        match=lambda address, fwmark=None: Match(ip_network("10.244.0.0/16"), 7, 254, None, is_local=False),
        links=list,
    )
    return Facts(node, HostPlan(1420), device, udp, frozenset(), routes, lambda name: None, **fields)


def names(found):
    return [finding.name for finding in found]


def test_nothing_is_found_where_nothing_is_wrong():
    assert diagnose(facts()) == []


@pytest.mark.parametrize(
    ("offloads", "missing"),
    [((True, False), "support UDP segmentation"), ((False, False), "support TCP and UDP segmentation")],
)
def test_kernel_without_super_packets_is_found(offloads, missing):
    (finding,) = diagnose(facts(offloads=offloads))

    assert finding.name == "tun_offloads"
    assert missing in str(finding)


def test_sockets_that_cannot_cut_are_found():
    able = SimpleNamespace(can_segment=True, can_coalesce=True)
    unable = SimpleNamespace(can_segment=True, can_coalesce=False)

    assert names(diagnose(facts(udp=[able, unable]))) == ["udp_offloads"]


def test_what_privilege_is_missing_for_is_found():
    found = diagnose(facts(is_icmp_refused=True, lacking="interface overlay0 is down"))

    assert names(found) == ["icmp_source", "device_prepared"]
    assert str(found[1]) == "interface overlay0 is down"


def test_finding_reads_as_its_problem_and_its_remedy():
    assert str(Finding("name", "it rains", "run `umbrella`")) == "it rains: run `umbrella`"


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (
            HostError("the routing tables of this host could not be read"),
            "the routing tables of this host could not be read",
        ),
        (OSError(errno.EMFILE, "Too many open files"), "Too many open files"),
    ],
)
def test_what_cannot_be_looked_at_is_not_taken_for_right(error, cause):
    def refuse():
        raise error

    looked_at = facts()
    looked_at.routes.links = refuse

    assert [str(each) for each in diagnose(looked_at)] == [f"not all of this host could be examined: {cause}"]
