from __future__ import annotations

import tomllib
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.services.schedulers import SCHEDULERS, Hashed, Loads, Real
from peers import service
from tests import slow_schedulers as slow

VECTORS = tomllib.loads(Path(__file__).parents[2].joinpath("vectors", "schedulers.toml").read_text())
BY_LOAD = ["lc", "wlc", "sed", "nq", "fo", "ovf"]
FLOWS = range(0, 1 << 32, 0x1234567)


def made(name, servers):
    scheduler = SCHEDULERS[name].make()
    change(scheduler, servers)
    return scheduler


def change(scheduler, servers):
    scheduler.set_servers(servers)
    while scheduler.prepare():
        pass


def servers_of(weights):
    return [Real(key, weight, index) for index, (key, weight) in enumerate(weights.items())]


def loads_of(servers):
    return Loads([0] * len(servers), [0] * len(servers))


def chosen(scheduler, servers, count, flow=0):
    """Return the keys of the servers for *count* flows that become active at once and stay."""
    loads, keys = loads_of(servers), ""
    for _ in range(count):
        index = scheduler.choose(flow, loads)
        if index is None:
            keys += "-"
            continue
        loads.active[index] += 1
        keys += servers[index].key
    return keys


@pytest.mark.parametrize("vector", VECTORS["sequences"], ids=lambda vector: vector["scheduler"])
def test_servers_are_chosen_as_the_kernel_chose_them(vector):
    servers = servers_of(vector["weights"])
    expected = vector["chosen"].replace(" ", "")

    scheduler = made(vector["scheduler"], servers)

    assert chosen(scheduler, servers, len(expected), vector.get("flow", 0)) == expected


def test_every_scheduler_has_the_name_of_its_line_and_a_sentence():
    assert set(SCHEDULERS) == set(service.SCHEDULERS)
    for name, kind in SCHEDULERS.items():
        assert kind.name == name
        assert kind.sentence[-1].isalnum() or kind.sentence.endswith("`")


some_servers = st.lists(st.integers(0, 9), min_size=1, max_size=8).map(
    lambda weights: [Real(f"10.0.0.{index}:0", weight, index) for index, weight in enumerate(weights)]
)
counts = st.lists(st.integers(0, 20), min_size=8, max_size=8)


@pytest.mark.parametrize("name", SCHEDULERS)
@given(some_servers, counts, counts, st.sets(st.integers(0, 7)), st.integers(0, 0xFFFFFFFF))
def test_no_flow_goes_to_a_server_that_takes_none_and_each_is_taken_if_one_does(
    name, servers, active, inactive, full, flow
):
    loads = Loads(active, inactive, full)
    able = {each.index for each in slow.takers(servers, loads)}

    index = made(name, servers).choose(flow, loads)

    if name == "ovf":
        able = {index for index in able if active[index] <= servers[index].weight}
    assert (index in able) if able else index is None


@pytest.mark.parametrize("name", SCHEDULERS)
def test_without_servers_no_flow_is_taken(name):
    scheduler = made(name, [])
    assert scheduler.choose(7, Loads()) is None
    one = [Real("a:0", 1, 0)]

    change(scheduler, one)
    assert scheduler.choose(7, loads_of(one)) == 0
    change(scheduler, [])
    assert scheduler.choose(7, Loads()) is None
    change(scheduler, one)
    assert scheduler.choose(7, loads_of(one)) == 0


@pytest.mark.parametrize("name", BY_LOAD)
@given(some_servers, counts, counts, st.sets(st.integers(0, 7)))
def test_schedulers_by_load_choose_as_their_rules_say(name, servers, active, inactive, full):
    loads = Loads(active, inactive, full)

    assert made(name, servers).choose(0, loads) == getattr(slow, name)(servers, loads)


@pytest.mark.parametrize("name", ["rr", "wrr"])
@given(some_servers.filter(lambda servers: any(each.weight for each in servers)))
def test_schedulers_in_turn_choose_as_their_rules_say(name, servers):
    scheduler, loads = made(name, servers), loads_of(servers)
    rounds = getattr(slow, f"{name}_rounds")(servers)
    step = (
        len(servers) * 20
    )  # the kernel's level begins where that of its first server is: at the lowest or above

    found = [scheduler.choose(0, loads) for _ in range(step)]
    expected = [each.index for each in islice(rounds, step * 3)]

    whole = sum(each.weight for each in servers)
    if name == "rr":
        assert found == expected[:step]
    else:
        assert any(found[whole:] == expected[at : at + step - whole] for at in range(2 * whole + 1))


@given(some_servers.filter(lambda servers: any(each.weight for each in servers)))
def test_weighted_turns_are_exactly_by_weight(servers):
    scheduler, loads = made("wrr", servers), loads_of(servers)
    whole = sum(each.weight for each in servers)
    for _ in range(whole):
        scheduler.choose(0, loads)

    found = Counter(scheduler.choose(0, loads) for _ in range(whole * 3))

    assert found == {each.index: each.weight * 3 for each in servers if each.weight}


@pytest.mark.parametrize("name", ["rr", "wrr"])
@given(st.lists(st.tuples(some_servers, st.integers(0, 20)), min_size=1, max_size=10))
def test_servers_may_change_at_any_time_and_turns_go_on(name, story):
    scheduler = SCHEDULERS[name].make()
    for servers, count in story:
        change(scheduler, servers)
        for _ in range(count):
            index = scheduler.choose(0, loads_of(servers))
            assert (index is None) == (not any(each.weight for each in servers))


def test_a_turn_goes_on_behind_the_last_when_servers_come_and_go():
    a, b, c, d = (Real(key, 1, index) for index, key in enumerate("abcd"))
    scheduler, loads = made("rr", [a, b, c]), Loads([0] * 4, [0] * 4)
    assert [scheduler.choose(0, loads) for _ in range(2)] == [0, 1]

    scheduler.set_servers([a, d, b, c])
    assert scheduler.choose(0, loads) == 2
    scheduler.set_servers([a, d, b])
    assert scheduler.choose(0, loads) == 0
    scheduler.set_servers([d, b])
    assert scheduler.choose(0, loads) == 3


def test_a_large_weight_of_a_server_that_is_full_costs_no_rounds():
    servers = [Real("a:0", 65535, 0), Real("b:0", 2, 1), Real("c:0", 1, 2)]
    scheduler, loads = made("wrr", servers), loads_of(servers)
    loads.full.add(0)

    assert "".join("abc"[scheduler.choose(0, loads)] for _ in range(9)) in "bcbbcbbcbbcb"


@pytest.mark.parametrize("name", ["sh", "dh"])
def test_hashes_of_a_drained_server_fall_back_and_all_others_stay(name):
    servers = [Real(key, 1, index) for index, key in enumerate("abcde")]
    scheduler, loads = made(name, servers), loads_of(servers)
    before = {flow: scheduler.choose(flow, loads) for flow in FLOWS}

    change(scheduler, [Real("a", 0, 0), *servers[1:]])
    after = {flow: scheduler.choose(flow, loads) for flow in FLOWS}

    assert all(after[flow] == index for flow, index in before.items() if index != 0)
    assert set(Counter(after[flow] for flow, index in before.items() if index == 0)) == {1, 2, 3, 4}


def test_buckets_of_source_hashing_are_by_weight():
    servers = [Real("a", 3, 0), Real("b", 1, 1)]
    scheduler = made("sh", servers)

    found = [scheduler.choose(flow, loads_of(servers)) for flow in range(256)]

    assert found == [0, 0, 0, 1] * 64


@pytest.mark.parametrize("name", [name for name, kind in SCHEDULERS.items() if kind.is_function])
def test_two_directors_choose_alike_whatever_they_chose_before(name):
    servers = servers_of({"10.0.0.1:80": 1, "10.0.0.2:80": 2, "10.0.0.3:80": 3})
    one, two = made(name, servers), made(name, servers)
    for flow in range(100):
        one.choose(flow, loads_of(servers))

    assert all(one.choose(flow, loads_of(servers)) == two.choose(flow, loads_of(servers)) for flow in FLOWS)


def test_what_is_a_function_of_the_flow_says_what_it_hashes():
    assert {name for name, kind in SCHEDULERS.items() if kind.hashed is not Hashed.NOTHING} == {
        "maglev",
        "sh",
        "dh",
    }


def test_a_server_is_full_from_its_upper_threshold_to_its_lower_one():
    loads = Loads([0], [0])

    def is_full(flows, lower):
        loads.inactive[0] = flows // 2
        loads.active[0] = flows - flows // 2
        loads.heed(Real("a", 1, 0, 100, lower))
        return 0 in loads.full

    assert [is_full(flows, 20) for flows in (99, 100, 99, 20, 19, 99)] == [
        False,
        True,
        True,
        True,
        False,
        False,
    ]
    assert [is_full(flows, 0) for flows in (100, 75, 74, 99)] == [True, True, False, False]
    loads.full.add(0)
    loads.heed(Real("a", 1, 0))
    assert not loads.full
