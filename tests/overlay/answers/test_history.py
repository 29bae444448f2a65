"""The history as the control socket tells it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import trio

from overlay.answers import history
from overlay.link.messages import PeerCounters
from overlay.records.history import INTERVAL, SAMPLES, VALUES, History


class Site:
    """A node with the peers tokyo and rome, of which *samples* were taken."""

    def __init__(self, samples=3):
        remotes = [
            SimpleNamespace(number=number, peer=SimpleNamespace(name=name))
            for number, name in ((1, "tokyo"), (2, "rome"))
        ]
        roster = SimpleNamespace(
            by_name={each.peer.name: each for each in remotes},
            by_number={each.number: each for each in remotes},
            owner=lambda address: None,
        )
        own = SimpleNamespace(name="paris", addresses=[])
        self.history, self.told = History(), []
        self.running = SimpleNamespace(
            history=self.history,
            roster=roster,
            node=lambda: SimpleNamespace(own=own, merged=None),
            options=SimpleNamespace(peers="peers.toml"),
        )
        for turn in range(samples):
            self.sample(turn)

    def sample(self, turn):
        now = 1000.0 + INTERVAL * turn
        self.history.begin(now, {1, 2})
        for number in (1, 2):
            row = PeerCounters(number, None, 100 * number * turn, 0, turn, 0, 0.0, {})
            self.history.count(number, row, self, now)

    async def tell_rows(self, rows):
        await trio.sleep(0)
        self.told += rows

    def ask(self, **request):
        return trio.run(history.answer, self.running, request, self.tell_rows, strict_exception_groups=True)


def test_all_peers_are_told_with_the_times_of_their_samples():
    site = Site()

    answer = site.ask()

    assert answer["ok"]
    assert answer["history"]["interval_seconds"] == 10.0
    assert answer["history"]["times_seconds"] == [1000.0, 1010.0, 1020.0]
    assert [row["name"] for row in site.told] == ["tokyo", "rome"]
    assert [row["sent_bytes_per_second"] for row in site.told] == [[None, 10.0, 10.0], [None, 20.0, 20.0]]
    assert site.told[0]["loss_ratio"] == [None, None, None]
    assert site.told[0]["round_trip_by"] is None


def test_one_peer_and_the_last_samples_are_told_where_they_are_asked_for():
    site = Site()

    answer = site.ask(name="rome", samples=2)

    assert answer["history"]["times_seconds"] == [1010.0, 1020.0]
    assert [(row["name"], row["sent_bytes_per_second"]) for row in site.told] == [("rome", [20.0, 20.0])]


def test_a_sample_begun_while_it_is_told_shifts_nothing(monkeypatch):
    monkeypatch.setattr(history, "VALUES_AT_ONCE", 1)
    site = Site()
    tell_rows = site.tell_rows

    async def tell_and_sample(rows):
        await tell_rows(rows)
        site.sample(3)

    site.tell_rows = tell_and_sample
    answer = site.ask()

    assert len(answer["history"]["times_seconds"]) == 3
    assert [row["sent_bytes_per_second"] for row in site.told] == [[None, 10.0, 10.0], [None, 20.0, 20.0]]


def test_before_the_first_sample_there_is_nothing_and_no_error():
    site = Site(samples=0)

    answer = site.ask()

    assert answer["history"]["times_seconds"] == []
    assert site.told[0]["is_kept"] is False
    assert all(site.told[0][name] is None for name in VALUES)


@pytest.mark.parametrize("samples", [0, -1, SAMPLES + 1, 1.5, "all", True, None, [1]])
def test_a_number_of_samples_that_there_cannot_be_is_refused(samples):
    answer = Site().ask(samples=samples)

    assert answer == {"ok": False, "kind": "usage", "error": "samples must be a whole number from 1 to 360"}


@pytest.mark.parametrize(
    ("name", "kind"),
    [("tokio", "unknown_peer"), (7, "unknown_peer"), ("paris", "own"), ("192.0.2.9", "unknown_peer")],
)
def test_a_name_that_no_other_peer_has_is_refused(name, kind):
    site = Site()

    assert site.ask(name=name)["kind"] == kind
    assert site.told == []
