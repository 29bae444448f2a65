from __future__ import annotations

import errno
from dataclasses import replace
from types import SimpleNamespace

import pytest

from overlay.diagnosis.finding import Finding
from overlay.diagnosis.registry import diagnose
from overlay.errors import HostError
from tests.overlay.diagnosis.examples import Interfaces, facts


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
    able = SimpleNamespace(can_segment=True, can_coalesce=True, receive_buffer=0)
    unable = SimpleNamespace(can_segment=True, can_coalesce=False, receive_buffer=0)

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
    looked_at.routes.links = looked_at.routes.host_routes = refuse

    assert [str(each) for each in diagnose(looked_at)] == [f"not all of this host could be examined: {cause}"]


def test_device_that_somebody_else_has_yet_to_bring_up_is_no_finding():
    known = facts(interfaces=Interfaces(down=["overlay0"]))

    assert "device_down" in names(diagnose(known))
    assert "device_down" not in names(diagnose(replace(known, node=replace(known.node, is_down=True))))


def test_device_that_is_down_is_found_and_routes_are_not_blamed():
    known = facts(interfaces=Interfaces(down=["overlay0"]))
    known.routes.match = lambda address, fwmark=None: None

    found = diagnose(known)

    assert found[0].name == "device_down"
    assert found[0].remedy == "run `ip link set overlay0 up`"
    assert "route_refused" not in names(found)
