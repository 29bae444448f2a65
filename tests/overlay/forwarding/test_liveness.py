"""The timers of a peer by themselves; test_core.py and tests/two_nodes/ test their effect in a session."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

from overlay.forwarding.bulk.capability import REPORT_TIME
from overlay.forwarding.liveness import Liveness
from overlay.forwarding.path.search import PathMtu
from overlay.forwarding.path.sources import PathMtuSources
from overlay.forwarding.peer import WIDE, LivePeer
from overlay.forwarding.timers import Timers
from overlay.link.messages import Moved, SessionWanted, SetPeer, Silence
from overlay.session.constants import REKEY_AFTER_MESSAGES, Timing

TIMING = Timing(rekey_jitter=0.25)
BEGIN = 1000.0
SILENT_AFTER = TIMING.keepalive_timeout + TIMING.rekey_timeout
ENDPOINT = ("192.0.2.7", 51820)


class Probes:
    """The search for a path MTU, which is due again when a test says so."""

    def __init__(self):
        self.restarted = []
        self.turned = []
        self.pause = math.inf

    def restart(self, peer, now):
        self.restarted.append((peer, now))

    def turn(self, peer, keypair, now, send):
        self.turned.append((peer, keypair, now, send))
        return now + self.pause


class Paths:
    """A kernel that knows about a path what a test says."""

    def __init__(self):
        self.looked = []
        self.mtu = None

    def look(self, peer, now):
        self.looked.append((peer, now))
        peer.path.due = now + 60
        if self.mtu is not None:
            peer.path.mtu, peer.path.is_known = self.mtu, True


class Lanes:
    """The lanes of sessions that have none."""

    def flows(self, peer, now):
        pass

    def turn(self, peer, now):
        pass


class Batch:
    """What is sent unprompted."""

    def __init__(self):
        self.sent = []
        self.offered = []

    def send_payload(self, peer, keypair, payload):
        self.sent.append((peer, keypair, payload))

    def send_probe(self):
        raise AssertionError

    def offer(self, peer, keypair, now):
        self.offered.append((peer, keypair, now))


class Size:
    """The size of units; a report is missing from the moment that a test sets."""

    def __init__(self, due=math.inf, *, is_known_to_pass=False, patience=0.5):
        self.due, self.is_known_to_pass, self.patience = due, is_known_to_pass, patience
        self.silences = []

    def silence_due(self):
        return self.due

    def silence(self, now):
        self.silences.append(now)
        self.due = math.inf


class Bench:
    """One peer with a keypair, its timers, and the reports to the agent."""

    def __init__(self):
        self.probes, self.paths, self.batch = Probes(), Paths(), Batch()
        self.reports = []
        self.link_is_full = False
        self.drawn = 0
        self.by_index = {}
        self.liveness = Liveness(
            TIMING, PathMtuSources(self.probes, self.paths), self.batch, self.by_index, Timers(), Lanes(),
            report=self.report, entropy=lambda size: bytes([self.drawn] * size),
        )  # fmt: skip
        self.peer = LivePeer(7)
        self.peer.move(ENDPOINT)
        self.peer.path.due = math.inf
        self.keypair = self.keypair_of(5)

    def keypair_of(self, index, size=None, report=b"report at %d"):
        """Return a keypair that is installed and in use from now on."""
        bulk = SimpleNamespace(size=size or Size(), report=lambda now: report and report % now)
        keypair = SimpleNamespace(
            rekey_at=BEGIN + 120,
            reject_at=BEGIN + 180,
            counter=0,
            created=BEGIN - 1,
            local_index=index,
            bulk=bulk,
            session=None,
            lane=0,
        )
        keypair.all = lambda: [keypair]
        self.by_index[index] = self.peer.keypairs.current = keypair
        return keypair

    def report(self, report):
        if not self.link_is_full:
            self.reports.append(report)
        return not self.link_is_full

    def turn_all(self, now):
        """Do what is due, and return its kinds."""
        done = list(self.liveness.timers.due(now))
        for peer, kind in done:
            self.liveness.turn(peer, kind, now)
        return [kind for _, kind in done]

    @property
    def payloads(self):
        return [payload for _, _, payload in self.batch.sent]


@pytest.fixture
def bench():
    return Bench()


# Requested sessions


def test_a_session_is_asked_for_at_most_once_a_second(bench):
    for now in (BEGIN, BEGIN + 0.5, BEGIN + 0.99, BEGIN + 1.0, BEGIN + 1.99):
        bench.liveness.want(bench.peer, now)

    assert bench.reports == [SessionWanted(7), SessionWanted(7)]


def test_a_session_is_asked_for_at_once_however_early_the_clock_is(bench):
    bench.liveness.want(bench.peer, 0.25)

    assert bench.reports == [SessionWanted(7)]


@pytest.mark.parametrize(
    ("age", "counter", "is_asked"),
    [
        (119.9, 0, False),
        (120.0, 0, True),
        (0.0, REKEY_AFTER_MESSAGES - 1, False),
        (0.0, REKEY_AFTER_MESSAGES, True),
    ],
)
def test_newer_keys_are_asked_for_once_those_in_use_are_old_or_used_often(bench, age, counter, is_asked):
    bench.keypair.counter = counter

    bench.liveness.data_sent(bench.peer, bench.keypair, 1, BEGIN + age)
    assert bench.reports == [SessionWanted(7)] * is_asked

    bench.reports.clear()
    bench.liveness.send_keepalive(bench.peer, BEGIN + age)
    assert bench.reports == [SessionWanted(7, is_idle=True)] * is_asked


# Data that is sent


def test_packets_that_are_sent_are_counted_and_are_traffic(bench):
    bench.liveness.data_sent(bench.peer, bench.keypair, 3, BEGIN)
    bench.liveness.data_sent(bench.peer, bench.keypair, 2, BEGIN + 1)

    assert bench.peer.traffic.tx_packets == 5
    assert bench.peer.contact.last_traffic == BEGIN + 1


@pytest.mark.parametrize("drawn", [0, 128])
def test_a_peer_that_answers_nothing_is_silent_after_the_time_of_the_protocol_and_a_moment_of_chance(
    bench, drawn
):
    bench.drawn = drawn
    bench.peer.local = SimpleNamespace(forget_source=lambda: bench.reports.append("forgotten"))
    bench.liveness.data_sent(bench.peer, bench.keypair, 1, BEGIN)
    due = BEGIN + SILENT_AFTER + drawn / 1024

    assert bench.liveness.timers.next_deadline() == due
    assert bench.turn_all(due) == ["silence"]
    assert bench.reports == ["forgotten", Silence(7, False), SessionWanted(7)]
    assert bench.peer.contact.is_silent
    assert bench.liveness.timers.next_deadline() == math.inf


def test_silence_counts_from_the_first_packet_since_the_peer_was_heard(bench):
    bench.drawn = 64
    bench.liveness.data_sent(bench.peer, bench.keypair, 1, BEGIN)
    bench.liveness.data_sent(bench.peer, bench.keypair, 1, BEGIN + 3)
    bench.peer.contact.unanswered_since = 0.0  # it was heard
    bench.liveness.data_sent(bench.peer, bench.keypair, 1, BEGIN + 4)

    assert bench.turn_all(BEGIN + SILENT_AFTER + 1) == ["silence"]
    assert bench.reports == []
    assert bench.liveness.timers.next_deadline() == BEGIN + 4 + SILENT_AFTER + 0.0625

    bench.turn_all(BEGIN + 4 + SILENT_AFTER + 0.2)
    assert bench.reports == [Silence(7, False), SessionWanted(7)]


def test_who_answered_is_not_silent(bench):
    bench.liveness.data_sent(bench.peer, bench.keypair, 1, BEGIN)
    bench.peer.contact.unanswered_since = 0.0

    assert bench.turn_all(BEGIN + 60) == ["silence"]
    assert bench.reports == []
    assert bench.liveness.timers.next_deadline() == math.inf


def test_silence_is_told_once_and_the_session_asked_for_each_time(bench):
    for now in (BEGIN, BEGIN + 60):
        bench.liveness.data_sent(bench.peer, bench.keypair, 1, now)
        bench.turn_all(now + 30)

    assert bench.reports == [Silence(7, False), SessionWanted(7), SessionWanted(7)]


def test_silence_and_its_end_are_told_later_if_the_link_is_full(bench):
    bench.link_is_full = True
    bench.liveness.data_sent(bench.peer, bench.keypair, 1, BEGIN)
    bench.turn_all(BEGIN + 30)
    assert not bench.peer.contact.is_silent

    bench.link_is_full = False
    bench.liveness.data_sent(bench.peer, bench.keypair, 1, BEGIN + 60)
    bench.turn_all(BEGIN + 90)
    assert bench.peer.contact.is_silent

    bench.link_is_full = True
    bench.liveness.end_silence(bench.peer)
    assert bench.peer.contact.is_silent

    bench.link_is_full = False
    bench.liveness.end_silence(bench.peer)
    bench.liveness.end_silence(bench.peer)
    assert bench.reports == [Silence(7, False), SessionWanted(7), Silence(7, True)]
    assert not bench.peer.contact.is_silent


# Pending answers


def test_data_without_an_answer_is_answered_by_a_keepalive_after_the_time_of_the_protocol(bench):
    bench.liveness.data_received(bench.peer, BEGIN)
    bench.liveness.data_received(bench.peer, BEGIN + 5)
    due = BEGIN + TIMING.keepalive_timeout

    assert bench.liveness.timers.next_deadline() == due
    assert bench.turn_all(due) == ["answer"]
    assert bench.batch.sent == [(bench.peer, bench.keypair, b"")]
    assert bench.peer.contact.last_traffic == due
    assert bench.liveness.timers.next_deadline() == math.inf


@pytest.mark.parametrize("answer", ["data", "message"])
def test_an_answer_counts_from_the_first_data_since_something_was_sent(bench, answer):
    bench.liveness.data_received(bench.peer, BEGIN)
    if answer == "data":
        bench.liveness.data_sent(bench.peer, bench.keypair, 1, BEGIN + 1)
    else:
        bench.liveness.send_message(bench.peer, b"message", BEGIN + 1)
        bench.batch.sent.clear()
    bench.liveness.data_received(bench.peer, BEGIN + 4)

    bench.turn_all(BEGIN + TIMING.keepalive_timeout)
    assert bench.batch.sent == []
    assert bench.liveness.timers.next_deadline() == BEGIN + 4 + TIMING.keepalive_timeout

    bench.turn_all(BEGIN + 4 + TIMING.keepalive_timeout)
    assert bench.payloads == [b""]


def test_who_has_been_answered_gets_no_keepalive(bench):
    bench.liveness.data_received(bench.peer, BEGIN)
    bench.liveness.data_sent(bench.peer, bench.keypair, 1, BEGIN + 1)

    assert bench.turn_all(BEGIN + 12) == ["answer"]
    assert bench.batch.sent == []
    assert "answer" not in bench.peer.timers


def test_without_keys_nothing_is_sent_and_they_are_asked_for(bench):
    bench.peer.contact.owed_since = BEGIN
    bench.peer.keypairs.current = None

    bench.liveness.send_message(bench.peer, b"message", BEGIN)

    assert bench.batch.sent == []
    assert bench.reports == [SessionWanted(7, is_idle=True)]
    assert bench.peer.contact.owed_since == BEGIN
    assert bench.peer.contact.last_traffic == -math.inf


def test_a_keepalive_that_cannot_be_sent_is_owed_no_longer(bench):
    bench.peer.keypairs.current = None
    bench.liveness.data_received(bench.peer, BEGIN)
    bench.turn_all(BEGIN + TIMING.keepalive_timeout)

    bench.liveness.data_received(bench.peer, BEGIN + 60)

    assert bench.liveness.timers.next_deadline() == BEGIN + 60 + TIMING.keepalive_timeout


# Persistent keepalives


def test_a_persistent_keepalive_goes_when_nothing_went_either_way_for_its_time(bench):
    bench.peer.settings = SetPeer(7, 25.0)
    bench.peer.contact.last_traffic = BEGIN
    bench.liveness.timers.arm(BEGIN + 25, bench.peer, "keepalive")

    bench.peer.contact.last_traffic = BEGIN + 10
    bench.turn_all(BEGIN + 25)
    assert bench.batch.sent == []
    assert bench.liveness.timers.next_deadline() == BEGIN + 35

    bench.turn_all(BEGIN + 35)
    assert bench.payloads == [b""]
    assert bench.peer.contact.last_traffic == BEGIN + 35
    assert bench.liveness.timers.next_deadline() == BEGIN + 60


def test_persistent_keepalives_go_on_asking_for_keys_while_there_are_none(bench):
    bench.peer.settings = SetPeer(7, 25.0)
    bench.peer.contact.last_traffic = BEGIN
    bench.peer.keypairs.current = None

    for number in (1, 2):
        bench.liveness.turn(bench.peer, "keepalive", BEGIN + number * 25)

    assert bench.reports == [SessionWanted(7, is_idle=True)] * 2
    assert bench.liveness.timers.next_deadline() == BEGIN + 50


def test_a_persistent_keepalive_that_was_switched_off_ends(bench):
    bench.liveness.turn(bench.peer, "keepalive", BEGIN)

    assert bench.batch.sent == []
    assert bench.liveness.timers.next_deadline() == math.inf


# Paths


def test_the_kernel_is_asked_for_the_path_once_that_is_due(bench):
    bench.peer.path.due = BEGIN
    for now in (BEGIN - 0.1, BEGIN, BEGIN + 1):
        bench.liveness.data_sent(bench.peer, bench.keypair, 1, now)

    assert bench.paths.looked == [(bench.peer, BEGIN)]


@pytest.mark.parametrize(
    ("mtu", "is_worth_it", "is_offered"),
    [
        (1280, False, True),
        (WIDE - 1, False, True),
        (WIDE, False, False),
        (None, False, False),
        (None, True, True),
    ],
)
def test_a_peer_is_asked_for_its_units_where_the_path_is_narrow_or_that_is_worth_it(
    bench, mtu, is_worth_it, is_offered
):
    bench.paths.mtu = mtu
    bench.peer.asking = SimpleNamespace(is_worth_it=is_worth_it)

    bench.liveness.look_at_path(bench.peer, BEGIN)

    assert bench.batch.offered == [(bench.peer, bench.keypair, BEGIN)] * is_offered


def test_a_narrow_path_of_which_the_kernel_has_told_nothing_is_no_reason_to_ask(bench):
    bench.peer.path.mtu = 1280

    bench.liveness.look_at_path(bench.peer, BEGIN)

    assert bench.batch.offered == []


@pytest.mark.parametrize("now", [BEGIN + 180, BEGIN + 200])
def test_nothing_is_asked_under_keys_whose_time_is_over(bench, now):
    bench.paths.mtu = 1280

    bench.liveness.look_at_path(bench.peer, now)

    assert bench.batch.offered == []


def test_probes_of_the_path_are_sent_when_they_are_due_and_again_later(bench):
    bench.probes.pause = 3.0

    bench.liveness.turn(bench.peer, "path", BEGIN)

    assert bench.probes.turned == [(bench.peer, bench.keypair, BEGIN, bench.batch.send_probe)]
    assert bench.liveness.timers.next_deadline() == BEGIN + 3
    assert "path" in bench.peer.timers


def test_probes_that_are_over_are_not_due_again(bench):
    bench.liveness.turn(bench.peer, "path", BEGIN + 180)

    assert bench.probes.turned[0][1] is None  # no keys
    assert bench.liveness.timers.next_deadline() == math.inf
    assert "path" not in bench.peer.timers


@pytest.mark.parametrize("is_over", [False, True])
def test_a_path_that_is_searched_anew_is_asked_of_the_kernel_and_probed_at_once(bench, is_over):
    """A search that was over, because a device of this host had refused a probe, began only with the next session."""
    bench.peer.path.search = PathMtu(1420)
    if not is_over:
        bench.liveness.timers.arm(BEGIN + 30, bench.peer, "path")

    bench.liveness.search_path_anew(bench.peer, BEGIN)

    assert bench.probes.restarted == [(bench.peer, BEGIN)]
    assert bench.peer.path.due == 0.0
    assert list(bench.liveness.timers.due(BEGIN)) == [(bench.peer, "path")]


def test_a_path_that_is_not_probed_is_not_probed_because_it_is_another(bench):
    bench.liveness.search_path_anew(bench.peer, BEGIN)

    assert bench.liveness.timers.next_deadline() == math.inf


# Moves


def test_the_agent_is_told_where_a_peer_is_and_its_path_searched_anew(bench):
    bench.peer.contact.moves.moved(("192.0.2.9", 9), BEGIN)

    bench.liveness.look_at_moves(bench.peer, BEGIN)

    assert bench.reports == [Moved(7, ENDPOINT, 1, ("192.0.2.9", 9))]
    assert bench.probes.restarted == [(bench.peer, BEGIN)]
    assert bench.liveness.timers.next_deadline() == math.inf


def test_moves_that_follow_are_told_together_later(bench):
    for after in (0.0, 0.1, 0.2):
        bench.peer.contact.moves.moved(("192.0.2.9", 9), BEGIN + after)
        bench.liveness.look_at_moves(bench.peer, BEGIN + after)

    assert len(bench.reports) == 1
    assert bench.liveness.timers.next_deadline() == BEGIN + 1
    assert bench.turn_all(BEGIN + 1) == ["moved"]
    assert bench.reports[1:] == [Moved(7, ENDPOINT, 2, ("192.0.2.9", 9))]
    assert len(bench.probes.restarted) == 1, "not before it has settled"


def test_moves_are_told_again_if_the_link_was_full(bench):
    bench.link_is_full = True
    bench.peer.contact.moves.moved(("192.0.2.9", 9), BEGIN)
    bench.liveness.look_at_moves(bench.peer, BEGIN)
    assert bench.liveness.timers.next_deadline() == BEGIN + 1

    bench.link_is_full = False
    bench.turn_all(BEGIN + 1)
    assert bench.reports == [Moved(7, ENDPOINT, 1, ("192.0.2.9", 9))]


# Units


def test_reports_of_units_that_were_sent_are_waited_for_once(bench):
    size = bench.keypair.bulk.size
    size.due = BEGIN + 0.2
    bench.liveness.units_sent(bench.peer, bench.keypair.bulk)
    size.due = BEGIN + 0.3
    bench.liveness.units_sent(bench.peer, bench.keypair.bulk)
    assert bench.liveness.timers.next_deadline() == BEGIN + 0.2

    assert bench.turn_all(BEGIN + 0.2) == ["units"]
    assert size.silences == []
    assert bench.liveness.timers.next_deadline() == BEGIN + 0.3

    assert bench.turn_all(BEGIN + 0.3) == ["units"]
    assert size.silences == [BEGIN + 0.3]
    assert bench.liveness.timers.next_deadline() == math.inf


def test_nothing_is_waited_for_once_all_is_reported(bench):
    size = bench.keypair.bulk.size
    bench.liveness.turn(bench.peer, "units", BEGIN)
    assert size.silences == []
    assert bench.liveness.timers.next_deadline() == math.inf

    size.due = BEGIN + 1
    bench.liveness.units_sent(bench.peer, bench.keypair.bulk)
    assert bench.liveness.timers.next_deadline() == BEGIN + 1


@pytest.mark.parametrize("kind", ["units", "gone"])
def test_without_a_session_or_without_units_no_report_is_missed(bench, kind):
    bench.peer.contact.last_received = BEGIN
    bench.keypair.bulk = None
    bench.liveness.turn(bench.peer, kind, BEGIN + 60)
    bench.peer.keypairs.current = None
    bench.liveness.turn(bench.peer, kind, BEGIN + 60)

    assert bench.reports == []
    assert bench.liveness.timers.next_deadline() == math.inf


@pytest.mark.parametrize(
    ("created", "received", "is_called"),
    [
        (BEGIN - 10, BEGIN - 1, True),
        (BEGIN - 10, BEGIN, True),  # not since the last unit
        (BEGIN - 10, BEGIN + 0.01, False),
        (BEGIN - 1, BEGIN - 1, False),  # nothing yet under these keys
        (BEGIN - 1, BEGIN - 2, False),
    ],
)
def test_a_peer_that_reported_units_and_is_not_heard_at_all_any_more_is_called(
    bench, created, received, is_called
):
    keypair = bench.keypair_of(6, Size(BEGIN, is_known_to_pass=True))
    keypair.created, bench.peer.contact.last_received = created, received
    bench.liveness.units_sent(bench.peer, keypair.bulk)

    assert bench.turn_all(BEGIN) == ["units"]
    assert bench.liveness.timers.next_deadline() == BEGIN + 0.5
    assert bench.turn_all(BEGIN + 0.5) == ["gone"]
    assert bench.reports == [SessionWanted(7)] * is_called


def test_a_peer_whose_units_were_never_reported_is_not_called(bench):
    keypair = bench.keypair_of(6, Size(BEGIN))
    bench.liveness.units_sent(bench.peer, keypair.bulk)

    bench.turn_all(BEGIN)

    assert bench.liveness.timers.next_deadline() == math.inf


def test_units_that_came_are_reported_together_under_the_keys_that_they_came_by(bench):
    bench.peer.contact.last_received = BEGIN
    bench.liveness.unit_received(bench.peer, bench.keypair)
    bench.liveness.unit_received(bench.peer, bench.keypair)
    old = bench.keypair
    bench.keypair_of(6)

    assert bench.liveness.timers.next_deadline() == BEGIN + REPORT_TIME
    bench.turn_all(BEGIN + REPORT_TIME)
    assert bench.batch.sent == [(bench.peer, old, b"report at 1000")]

    bench.liveness.turn(bench.peer, "report", BEGIN + 1)
    assert len(bench.batch.sent) == 1, "nothing arrived since"


def test_units_under_newer_keys_have_those_before_reported_at_once(bench):
    bench.peer.contact.last_received = BEGIN
    bench.liveness.unit_received(bench.peer, bench.keypair)
    new = bench.keypair_of(6)

    bench.liveness.unit_received(bench.peer, new)
    assert bench.batch.sent == [(bench.peer, bench.keypair, b"report at 1000")]

    bench.turn_all(BEGIN + REPORT_TIME)
    assert bench.batch.sent[1:] == [(bench.peer, new, b"report at 1000")]


def forgotten(bench):
    del bench.by_index[bench.keypair.local_index]


def replaced(bench):
    bench.by_index[bench.keypair.local_index] = object()


def too_old(bench):
    bench.keypair.reject_at = BEGIN + REPORT_TIME


def without_units(bench):
    bench.keypair.bulk = None


def with_nothing_to_say(bench):
    bench.keypair.bulk.report = lambda now: None


@pytest.mark.parametrize("change", [forgotten, replaced, too_old, without_units, with_nothing_to_say])
def test_nothing_is_reported_under_keys_that_are_gone_or_have_nothing_to_say(bench, change):
    bench.peer.contact.last_received = BEGIN
    bench.liveness.unit_received(bench.peer, bench.keypair)
    change(bench)

    assert bench.turn_all(BEGIN + REPORT_TIME) == ["report"]
    assert bench.batch.sent == []
    assert bench.peer.contact.reporting is None
