from __future__ import annotations

from bisect import bisect_right
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.forwarding.clear.source_ranges import SORTED, STEP, SourceRanges
from overlay.forwarding.owners import Owners
from overlay.forwarding.table import Prefixes
from overlay.forwarding.workqueue import Workqueue

PLACES = st.integers(0, 7) | st.integers(0, 255)


@st.composite
def prefixes(draw, size):
    """Return (address, length) of a prefix, of which only the first and the last byte are not 0."""
    address = bytes([draw(PLACES), *bytes(size - 2), draw(PLACES)])
    length = draw(st.integers(0, 8) | st.integers(size * 8 - 8, size * 8))
    number = int.from_bytes(address, "big") >> (size * 8 - length) << (size * 8 - length)
    return number.to_bytes(size, "big"), length


def known(rows):
    found = Prefixes()
    for packed, length in rows:
        found.insert(packed, length, True)
    return found


class Peer:
    """An unencrypted peer, and the commands about it."""

    def __init__(self, sources):
        self.number, self.told, self.unsealed = 1, [], self
        self.sources = known(sources)

    def tell_ranges(self, *changes):
        self.told.append(changes)


def core_of(table=()):
    core = SimpleNamespace(table=Owners(), jobs=Workqueue())
    core.services = SimpleNamespace(permits=SimpleNamespace(returning=frozenset()))
    core.table.stage([(packed, length, "somebody") for packed, length in table])
    core.table.commit()
    return core


ALL = [(bytes(4), 0), (bytes(16), 0)]


@given(data=st.data(), size=st.sampled_from([4, 16]))
def test_the_ranges_hold_the_addresses_that_the_prefixes_let_a_peer_send_from(data, size):
    peer = Peer(data.draw(st.lists(prefixes(size), max_size=6)))
    core = core_of(data.draw(st.lists(prefixes(size), max_size=12)))

    SourceRanges(core).want(peer)
    core.jobs.run(0.0)

    ((*both,),) = peer.told
    changes = [both[size == 16][at : at + size] for at in range(0, len(both[size == 16]), size)]
    assert changes == sorted(set(changes))
    for first in range(256):
        for last in (0, 1, 7, 128, 255):
            address = bytes([first, *bytes([0, 255][last == 255] for _ in range(size - 2)), last])
            assert bisect_right(changes, address) % 2 == core.table.has_source(peer, address)


def test_ranges_are_told_once_and_when_they_were_forgotten_again():
    core, peer = core_of(), Peer(ALL)
    ranges = SourceRanges(core)

    for _ in range(2):
        ranges.want(peer)
        core.jobs.run(0.0)
    assert peer.told == [(bytes(4), bytes(16))]

    ranges.forget()
    assert peer.told.pop() == (b"", b"")
    ranges.want(peer)
    core.jobs.run(0.0)
    assert len(peer.told) == 2


def test_other_sources_are_told_anew():
    core, peer = core_of(), Peer(ALL)
    ranges = SourceRanges(core)
    ranges.want(peer)

    peer.sources = known(ALL[:1])  # before those of the former have been found
    ranges.want(peer)
    core.jobs.run(0.0)

    assert peer.told == [(bytes(4), b"")]


SUBNETS = [(bytes([10, number, 0, 0]), 24) for number in range(SORTED)]


def test_no_step_takes_more_of_a_large_table_than_it_may():
    core, peer = core_of(SUBNETS), Peer(ALL)
    bounds, has_source = core.table.bounds, core.table.has_source
    taken, asked, steps = [], [], []
    core.table.bounds = lambda size: (taken.append(each) or each for each in bounds(size))
    core.table.has_source = lambda *given: asked.append(given) or has_source(*given)

    def count():
        steps.append((len(taken), len(asked)))
        taken.clear()
        asked.clear()
        return True

    SourceRanges(core).want(peer)
    core.jobs.run(0.0, count)

    assert [max(each) for each in zip(*steps, strict=True)] == [SORTED, STEP]
    assert len(peer.told) == 1


@pytest.mark.parametrize("steps", [1, 2, 3, 10])
def test_ranges_are_not_told_if_the_table_changes_while_they_are_found(steps):
    core, peer = core_of(SUBNETS), Peer(ALL)
    ranges = SourceRanges(core)
    ranges.want(peer)
    for _ in range(steps):
        core.jobs.run(0.0, lambda: False)

    core.table.stage([(packed, length, None) for packed, length in SUBNETS])
    core.table.commit()
    core.table.catch_up()
    ranges.forget()
    core.jobs.run(0.0)

    assert peer.told == [(b"", b"")]


def test_nothing_is_told_where_answers_go_back_through_a_director_or_a_peer_has_no_sources():
    core, peer, other = core_of(), Peer(ALL), Peer(ALL)
    other.sources = None
    core.services.permits.returning = frozenset([bytes(4)])

    ranges = SourceRanges(core)
    ranges.want(peer)
    core.services.permits.returning = frozenset()
    ranges.want(other)
    core.jobs.run(0.0)

    assert peer.told == other.told == []
