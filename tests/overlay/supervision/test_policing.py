from __future__ import annotations

import pytest

from overlay.link.messages import (
    CONTROL_AT_ONCE,
    CONTROL_PER_SECOND,
    ControlReceived,
    Counters,
    Handshake,
    Moved,
    PeerCounters,
    Ponged,
    Ready,
    SessionWanted,
    Silence,
    Station,
)
from overlay.link.service_messages import FlowRow, Flows, ServerCounters, ServiceCounters
from overlay.supervision.policing import (
    BURST,
    BURST_PER_PEER,
    GARBAGE,
    PER_SECOND,
    PER_SECOND_AND_PEER,
    Policing,
    kind_of,
)

HERE, NOW = ("192.0.2.1", 51820), 1000.0
REPORTS = [Ready([]), SessionWanted(1), Moved(1, HERE), Silence(1, True), Counters(1, [], {}, True)]


def awaits_nothing(_):
    return False


@pytest.mark.parametrize("report", REPORTS, ids=kind_of)
def test_one_that_reports_without_end_is_found_out(report):
    policing = Policing(awaits_nothing)

    allowed = [policing.allows(report, 2, NOW) for _ in range(int(BURST + 2 * BURST_PER_PEER) + 2)]

    assert allowed.index(False) == BURST + 2 * BURST_PER_PEER


def test_forwarder_that_passes_on_what_all_peers_may_say_is_not_ended():
    policing, peers = Policing(awaits_nothing), 5
    report = ControlReceived(1, b"x")
    rate = peers * CONTROL_PER_SECOND

    assert all(policing.allows(report, peers, NOW) for _ in range(int(peers * CONTROL_AT_ONCE)))
    assert all(policing.allows(report, peers, NOW + number / rate) for number in range(100_000))


def test_garbage_is_allowed_some_times_in_all():
    policing = Policing(awaits_nothing)

    assert [policing.allows(None, 50_000, NOW + day * 86_400) for day in range(int(GARBAGE) + 1)] == [
        *[True] * int(GARBAGE),
        False,
    ]


def test_counters_cost_as_many_reports_as_they_have_rows():
    rows = [PeerCounters(number, None, 0, 0, 0, 0, 0.0, {}) for number in range(1000)]
    policing, most = Policing(awaits_nothing), (BURST + BURST_PER_PEER) / 1001

    allowed = [policing.allows(Counters(1, rows, {}, False), 1, NOW) for _ in range(100)]

    assert sum(allowed) == int(most)


@pytest.mark.parametrize(
    "report",
    [
        ServiceCounters(1, 0.0, [ServerCounters(0, 0, 0, 0, 0, 0, 0)] * 100, [], {}, False),
        Flows(1, [FlowRow(6, bytes(4), 1, bytes(4), 80, 2, 0, 0.0, 0.0)] * 100, is_last=False),
    ],
    ids=kind_of,
)
def test_rows_about_services_that_nobody_asked_for_count_like_reports(report):
    policing = Policing(lambda _: False)

    allowed = [policing.allows(report, 1, NOW) for _ in range(300)]

    assert 190 <= sum(allowed) <= 210
    assert Policing(lambda _: True).allows(report, 1, NOW)


@pytest.mark.parametrize("report", [Counters(1, [], {}, False), Ponged(1, 1, 0.1), Station(1)], ids=kind_of)
def test_answers_that_somebody_waits_for_are_as_many_as_were_asked_for(report):
    policing = Policing(lambda answer: answer is report)

    assert all(policing.allows(report, 1, NOW) for _ in range(100_000))


@pytest.mark.parametrize("peers", [1, 100, 50_000])
def test_what_all_peers_give_cause_for_is_allowed_for_ever(peers):
    policing, rate = Policing(awaits_nothing), PER_SECOND + peers * PER_SECOND_AND_PEER
    steps = 100_000

    assert all(policing.allows(SessionWanted(1), peers, NOW + step / rate) for step in range(steps))


def test_every_peer_may_be_reported_at_once_after_a_while_of_silence():
    policing = Policing(awaits_nothing)

    for hour in range(3):
        assert all(policing.allows(SessionWanted(peer), 50_000, NOW + hour * 3600) for peer in range(50_000))


def test_one_kind_leaves_the_others_what_they_may():
    policing = Policing(awaits_nothing)
    while policing.allows(SessionWanted(1), 2, NOW):
        pass

    assert policing.allows(Silence(1, False), 2, NOW)


def test_handshakes_are_as_many_as_the_network_has():
    policing, handshake = Policing(awaits_nothing), Handshake(bytes(148), HERE)

    assert all(policing.allows(handshake, 1, NOW) for _ in range(100_000))
