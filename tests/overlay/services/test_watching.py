"""Checks of many services: shared, kept over reloads, spread in time."""

from __future__ import annotations

import dataclasses
import math
from ipaddress import ip_address

import pytest

from overlay.services.checking import Result
from overlay.services.health import ByHand, QuorumChanged, ServerChanged
from overlay.services.watching import StateChanges, Watching
from peers.service import Check, Server, Service

GOOD, BAD = Result(True, "fine"), Result(False, "refused")
PAGE = Check("http", name="page", every=6.0, retries=0)
OWN = Check("tcp", every=10.0, retries=0)
WEB1, WEB2 = Server("web1", "web1"), Server("web2", "web2")
VIP, VIP6 = ip_address("203.0.113.80"), ip_address("2001:db8::80")
WEB = Service("web", (VIP,), ports=((80, 80),), servers=(WEB1, WEB2), checks=(PAGE,))
SECURE = dataclasses.replace(
    WEB, name="secure", ports=((443, 443),), servers=(Server("web1", "web1", port=8443),), checks=(PAGE, OWN)
)


def watching(*services, share=0.0):
    made = Watching(lambda: share)
    made.adopt({each.name: each for each in services}, 100.0)
    return made


def names(probes):
    return [(each.check.name or each.check.kind, each.service.name, each.server.name) for each in probes]


def test_a_shared_check_runs_once_for_each_server():
    made = watching(WEB, SECURE)
    assert names(made.due(100.0)) == [
        ("page", "web", "web1"),
        ("page", "web", "web2"),
        ("tcp", "secure", "web1"),
    ]
    assert made.due(100.0) == []
    assert made.next_deadline() == math.inf  # all run


def test_service_of_both_ip_versions_is_checked_at_the_first_address_of_each():
    other = ip_address("203.0.113.81")
    both = dataclasses.replace(WEB, addresses=(VIP6, VIP, other), servers=(WEB1,), checks=(PAGE, OWN))
    made = watching(both)
    probes = made.due(100.0)
    assert [(each.check.kind, each.address) for each in probes] == [
        ("http", VIP6), ("tcp", VIP6), ("http", VIP), ("tcp", VIP)
    ]  # fmt: skip
    assert len({each.key for each in probes}) == 4


@pytest.mark.parametrize(("versions", "asked"), [({4}, [VIP]), ({6}, [VIP6]), (set(), [VIP6])])
def test_node_that_has_no_address_of_a_version_does_not_ask_by_it(versions, asked):
    made = Watching(lambda: 0.0)
    both = dataclasses.replace(WEB, addresses=(VIP6, VIP), servers=(WEB1,))
    made.adopt({"web": both}, 100.0, versions)
    assert [each.address for each in made.due(100.0)] == asked


def test_result_of_a_shared_check_counts_for_all_its_services():
    made = watching(WEB, SECURE)
    page1, page2, own = made.due(100.0)
    for probe in (page2, own):
        assert made.finish(probe, GOOD, 100.0)
    assert made.look(100.0) == StateChanges(("web", "secure"), [])
    assert made.finish(page1, BAD, 101.0)
    looked = made.look(101.0)
    (secure1,) = SECURE.servers

    assert looked.services == ("web", "secure")
    assert looked.news == [
        ("web", ServerChanged(WEB1, False, "refused")),
        ("secure", ServerChanged(secure1, False, "refused")),
        ("secure", QuorumChanged(False, 0, 1)),
    ]
    assert made.next_deadline() == 106.0


def test_containers_of_one_host_are_checked_each():
    one, other = (
        Server(f"web1@{text}", "web1", address=ip_address(text)) for text in ("10.244.1.2", "10.244.1.3")
    )
    made = watching(dataclasses.replace(WEB, servers=(one, other)))
    assert len(made.due(100.0)) == 2


def test_ports_of_probes():
    made = watching(WEB, dataclasses.replace(SECURE, checks=(dataclasses.replace(OWN, port=9000),)))
    assert [each.port for each in made.due(100.0)] == [80, 80, 9000]
    made = watching(dataclasses.replace(WEB, ports=()))
    assert [each.port for each in made.due(100.0)] == [0, 0]


def test_checks_follow_each_other_by_their_ends():
    made = watching(WEB)
    page1, page2 = made.due(100.0)
    made.finish(page1, GOOD, 101.0)
    made.finish(page2, GOOD, 103.0)
    assert made.next_deadline() == 107.0
    assert names(made.due(107.0)) == [("page", "web", "web1")]
    assert made.next_deadline() == 109.0


def test_why_a_server_is_down_is_what_its_last_check_found_though_it_stands_as_before():
    made = watching(WEB)
    page1, _ = made.due(100.0)
    made.finish(page1, Result(False, "no answer within 3 s"), 103.0)
    made.look(103.0)
    made.due(109.0)

    assert not made.finish(page1, BAD, 109.0)  # nobody has to be informed

    assert made.healths["web"].reason(WEB1) == "refused"


def test_reload_goes_on_with_checks_as_they_are():
    made = watching(WEB)
    page1, page2 = made.due(100.0)
    made.finish(page1, BAD, 100.0)
    made.look(100.0)
    made.adopt({"web": dataclasses.replace(WEB, scheduler="wlc"), "secure": SECURE}, 103.0)

    assert not made.healths["web"].standings[WEB1.key].effective
    assert names(made.due(103.0)) == [("tcp", "secure", "web1")]  # the page of web2 still runs
    assert made.finish(page2, BAD, 104.0)
    assert made.look(104.0).news[0] == ("web", ServerChanged(WEB2, False, "refused"))


def test_result_of_a_check_that_the_file_has_changed_meanwhile_counts_for_nothing():
    made = watching(WEB)
    page1, _ = made.due(100.0)
    made.adopt({"web": dataclasses.replace(WEB, checks=(dataclasses.replace(PAGE, path="/other"),))}, 101.0)
    assert not made.finish(page1, BAD, 101.0)
    assert made.healths["web"].standings[WEB1.key].effective == 1

    made.adopt({}, 102.0)
    assert not made.finish(page1, BAD, 102.0)
    assert made.look(102.0) == StateChanges((), [])
    assert made.next_deadline() == math.inf


def test_check_can_be_run_now():
    made = watching(WEB, SECURE, share=1.0)
    assert made.due(100.0) == []
    assert names(made.run_now("secure", "web1:8443", 101.0)) == [
        ("page", "web", "web1"),
        ("tcp", "secure", "web1"),
    ]
    assert len(made.due(101.0)) == 2
    assert made.next_deadline() == 106.0
    assert made.run_now("web", "nobody:0", 101.0) == []


def test_settings_by_hand_and_slow_start_are_those_of_the_service():
    made = watching(dataclasses.replace(WEB, slow_start=10.0))
    page1, page2 = made.due(100.0)
    made.finish(page2, GOOD, 100.0)
    made.finish(page1, BAD, 100.0)
    made.look(100.0)
    assert made.set_by_hand("web", WEB2.key, ByHand(is_drained=True), 101.0) == [
        ("web", QuorumChanged(False, 0, 1))
    ]
    (page1,) = [each for each in made.due(106.0) if each.server is WEB1]
    made.finish(page1, GOOD, 106.0)
    made.look(106.0)
    assert made.next_step() == 107.0
    assert made.look(107.0) == StateChanges(("web",), [])
    assert made.healths["web"].next_deadline() == 108.0


def test_result_like_the_last_is_nothing_to_look_at():
    made = watching(WEB)
    for now in (100.0, 110.0):
        for probe in made.due(now):
            assert made.finish(probe, GOOD, now) == (now == 100.0)
    assert made.look(110.0).services == ("web",)
    assert made.look(110.0) == StateChanges((), [])


def test_check_that_could_not_be_made_is_due_again_and_says_nothing():
    made = watching(WEB)
    page1, page2 = made.due(100.0)
    made.finish(page2, GOOD, 100.0)
    made.look(100.0)
    made.postpone(page1, 101.0)
    assert made.look(100.5) == StateChanges((), [])
    assert made.next_deadline() == 101.0
    assert names(made.due(101.0)) == [("page", "web", "web1")]


def test_checks_without_room_stay_due():
    made = watching(WEB)
    assert made.due(100.0, 0) == []
    assert names(made.due(100.0, 1)) == [("page", "web", "web1")]
    assert names(made.due(100.0, 5)) == [("page", "web", "web2")]
