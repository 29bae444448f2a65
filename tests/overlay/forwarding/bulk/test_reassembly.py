"""Incomplete units: how many are kept, whose are dropped first, and how much memory remains."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from overlay.forwarding.bulk import units
from overlay.forwarding.bulk.reassembly import (
    UNITS_FROM_ELSEWHERE,
    UNITS_PER_SESSION,
    UNITS_TOTAL,
    Reassembly,
)
from overlay.forwarding.bulk.units import LAYOUTS, Cutter
from tests.refusals import refused

SOURCE, ELSEWHERE = ("192.0.2.1", 51820), ("203.0.113.1", 51820)


class Bench:
    """A Reassembly, and the units that it gave up."""

    def __init__(self):
        self.given_up = []
        self.reassembly = Reassembly(self.given_up.append)

    def begin(self, index, counter, *, source=SOURCE, count=3, cipher=1, now=0.0):
        keypair = SimpleNamespace(index=index)
        return self.reassembly.place(
            keypair, (index, counter, source), count, cipher, now, is_at_endpoint=source == SOURCE
        )

    def has(self, index, counter, source=SOURCE):
        return (index, counter, source) in self.reassembly._partials


@pytest.fixture
def bench():
    return Bench()


def rows(*sizes):
    return np.zeros((len(sizes), max(sizes)), np.uint8)


def test_a_session_that_has_too_many_loses_its_own_oldest_and_no_other_s(bench):
    bench.begin(1, 0)
    bench.begin(2, 0)
    for counter in range(1, UNITS_PER_SESSION + 3):
        bench.begin(2, counter)

    assert bench.has(1, 0)
    assert [bench.has(2, counter) for counter in range(4)] == [False, False, False, True]
    assert [each.keypair.index for each in bench.given_up] == [2] * 3


def test_units_from_elsewhere_displace_the_oldest_from_elsewhere_alone(bench):
    bench.begin(1, 0)
    for counter in range(UNITS_FROM_ELSEWHERE + 2):
        bench.begin(1, counter, source=ELSEWHERE)

    assert bench.has(1, 0)
    assert [bench.has(1, counter, ELSEWHERE) for counter in range(3)] == [False, False, True]
    assert len(bench.given_up) == 2


def test_all_sessions_together_keep_so_many_and_lose_the_oldest(bench):
    for index in range(UNITS_TOTAL + 2):
        bench.begin(index, 0)

    assert len(bench.reassembly) == UNITS_TOTAL
    assert [bench.has(index, 0) for index in range(3)] == [False, False, True]


def test_what_was_given_up_counts_no_longer(bench):
    for counter in range(3 * UNITS_PER_SESSION):
        bench.begin(1, counter)
    bench.reassembly.forget_keypair(1)
    bench.given_up.clear()

    for counter in range(UNITS_PER_SESSION):
        bench.begin(1, 100 + counter)

    assert not bench.given_up
    assert len(bench.reassembly) == UNITS_PER_SESSION


def test_buffers_are_used_again_and_only_so_many_are_kept(bench):
    first = bench.begin(0, 0).buffer
    for index in range(1, UNITS_TOTAL):
        bench.begin(index, 0)
    for index in range(UNITS_TOTAL):
        bench.reassembly.forget_keypair(index)

    assert len(bench.reassembly._pool) == UNITS_PER_SESSION
    assert any(bench.begin(index, 1).buffer is first for index in range(UNITS_PER_SESSION))


@pytest.mark.parametrize(("tail", "is_taken"), [(49, True), (50, True), (51, False)])
def test_the_last_fragment_is_no_longer_than_the_others(bench, tail, is_taken):
    partial = bench.begin(1, 0, count=2)
    reassembly = bench.reassembly
    assert not reassembly.put(partial, 1, rows(tail), tail)
    assert reassembly.put(partial, 0, rows(50), 50)

    if is_taken:
        sealed, _ = reassembly.take((1, 0, SOURCE))
        assert len(sealed) == units.LEAD + 50 + tail
    else:
        with refused("fragment_size"):
            reassembly.take((1, 0, SOURCE))
    assert len(reassembly) == 0


def test_a_unit_of_one_fragment_has_any_size(bench):
    partial = bench.begin(1, 0, count=1)

    assert bench.reassembly.put(partial, 0, rows(1200), 1200)
    assert len(bench.reassembly.take((1, 0, SOURCE))[0]) == units.LEAD + 1200


@pytest.mark.parametrize("how", [{"count": 4}, {"cipher": 2}])
def test_a_fragment_that_contradicts_its_unit_changes_nothing(bench, how):
    partial = bench.begin(1, 0)

    with refused("fragment_header"):
        bench.begin(1, 0, **how)

    assert bench.begin(1, 0) is partial


def test_only_so_many_layouts_of_sends_are_remembered():
    cutter = Cutter()

    for size in range(1200, 1200 + 2 * LAYOUTS + 1):
        cutter._lay_out(3, size)

    assert len(cutter._layouts) <= LAYOUTS
