from __future__ import annotations

import tomllib
from array import array
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.services.schedulers.maglev import SLOTS, Maglev, fill, likes, slots_for, table_of
from overlay.services.schedulers.scheduler import Loads, Real
from tests import slow_schedulers
from tests.hypothesis_profiles import examples

VECTORS = tomllib.loads(Path(__file__).parents[3].joinpath("vectors", "schedulers.toml").read_text())[
    "tables"
]
FLOWS = range(0, 1 << 32, 99_991 * 13)
FREE = 0xFFFF


def filled(likings, weights, slots, piece=2000):
    table = array("H", [FREE]) * slots
    for _ in fill(table, likings, weights, piece):
        pass
    return table.tolist()


@pytest.fixture(autouse=True)
def _no_recent_tables():
    table_of.cache_clear()


def ready(servers):
    maglev = Maglev()
    change(maglev, servers)
    return maglev


def change(maglev, servers):
    maglev.set_servers(servers)
    while maglev.prepare():
        pass


def farm(count, weights=None):
    weights = weights or {}
    return [Real(f"10.0.0.{number}:80", weights.get(number, 1), number) for number in range(count)]


def loads(count=64):
    return Loads([0] * count, [0] * count)


def placed(maglev):
    return {flow: maglev.choose(flow, loads()) for flow in FLOWS}


@pytest.mark.parametrize("vector", VECTORS)
def test_table_is_filled_as_published(vector):
    assert filled(vector["likings"], vector["weights"], len(vector["slots"])) == vector["slots"]


@given(
    st.sampled_from([7, 11, 101, 251, 509]),
    st.lists(
        st.tuples(st.integers(0, 2**64), st.integers(0, 2**64), st.integers(1, 12)), min_size=1, max_size=9
    ),
    st.integers(1, 500),
)
def test_table_is_that_of_the_paper_in_pieces_of_any_size(slots, servers, piece):
    likings = [(first % slots, step % (slots - 1) + 1) for first, step, _ in servers]
    weights = [weight for _, _, weight in servers]

    assert filled(likings, weights, slots, piece) == slow_schedulers.maglev(likings, weights, slots)


@pytest.mark.slow
@examples(5)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=12))
def test_table_of_the_usual_size_is_that_of_the_paper(weights):
    likings = [likes(f"10.0.{number}.1:80", 4093) for number in range(len(weights))]

    assert filled(likings, weights, 4093) == slow_schedulers.maglev(likings, weights, 4093)


def test_the_table_grows_with_the_servers_and_its_size_is_a_prime():
    assert [slots_for(count) for count in (0, 1, 655, 656, 1000)] == [SLOTS, SLOTS, SLOTS, 65_609, 100_003]


def test_every_director_has_the_same_table_whoever_joined_first():
    servers = farm(5, {2: 7})

    assert placed(ready(servers)) == placed(ready(servers[::-1]))


def test_the_same_servers_with_other_places_keep_their_slots():
    maglev = ready(farm(5))
    before = placed(maglev)

    maglev.set_servers([Real(each.key, each.weight, each.index + 10) for each in farm(5)])

    assert {flow: index - 10 for flow, index in placed(maglev).items()} == before
    assert not maglev.prepare(), "nothing is computed again"


@pytest.mark.parametrize(("count", "moved"), [(3, 0.005), (10, 0.01), (50, 0.02)])
def test_few_flows_of_others_move_when_a_server_goes(count, moved):
    maglev = ready(farm(count))
    before = placed(maglev)

    change(maglev, farm(count)[1:])
    after = placed(maglev)

    others = [flow for flow in before if before[flow] != 0]
    assert sum(before[flow] != after[flow] for flow in others) / len(others) <= moved


def test_each_server_has_its_share_by_weight():
    weights = {0: 1, 1: 2, 2: 5, 3: 0}
    maglev = ready(farm(4, weights))

    slots = Counter(maglev.choose(flow, loads()) for flow in range(SLOTS))

    assert all(abs(slots[index] / SLOTS - weight / 8) < 0.001 for index, weight in weights.items())


def test_flows_of_a_server_that_went_go_to_others_before_the_new_table_is_ready():
    maglev = ready(farm(4))
    before = placed(maglev)

    maglev.set_servers(farm(4, {1: 0}))
    during = placed(maglev)

    assert all(during[flow] == index for flow, index in before.items() if index != 1)
    assert {during[flow] for flow, index in before.items() if index == 1} == {0, 2, 3}
    assert maglev.prepare()


def test_a_server_that_is_soon_back_has_its_slots_at_once():
    maglev = ready(farm(4))
    before = placed(maglev)
    change(maglev, farm(4, {1: 0}))

    maglev.set_servers(farm(4))

    assert not maglev.prepare()
    assert placed(maglev) == before


def test_those_with_the_same_servers_fill_one_table_together():
    one, other = Maglev(), Maglev()
    for each in (one, other):
        each.set_servers(farm(3))

    while one.prepare() or other.prepare():
        pass

    assert placed(one) == placed(other)
    assert table_of.cache_info().misses == 1


def test_a_server_that_came_has_flows_when_the_new_table_is_ready():
    maglev = ready(farm(3))

    maglev.set_servers(farm(4))
    assert 3 not in placed(maglev).values()
    while maglev.prepare():
        pass

    assert 3 in placed(maglev).values()


def test_a_change_during_the_work_begins_it_anew():
    maglev = Maglev()
    maglev.set_servers(farm(3))
    maglev.prepare()

    change(maglev, farm(5))

    assert placed(maglev) == placed(ready(farm(5)))


def test_it_is_ready_once_there_is_a_table_or_nothing_to_make_one_of():
    maglev = Maglev()
    assert maglev.is_ready
    maglev.set_servers(farm(3))
    assert not maglev.is_ready
    assert maglev.choose(1, loads()) is None

    while maglev.prepare():
        pass

    assert maglev.is_ready


def test_many_servers_have_a_larger_table():
    maglev = ready(farm(700))

    slots = Counter(maglev.choose(flow, loads()) for flow in range(slots_for(700)))

    assert len(slots) == 700
    assert max(slots.values()) - min(slots.values()) <= 1
