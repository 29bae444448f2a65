from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.forwarding.services import flows as module
from overlay.forwarding.services.flows import SHARD, FlowTable
from overlay.services import states
from overlay.services.states import CLOSING, UNPROVEN, State, timeouts
from tests.hypothesis_profiles import examples

STATES = [state for state in State if state is not State.NONE]
SYN, OPEN = State.SYN_RECV, State.ESTABLISHED


def key_of(number):
    return number.to_bytes(12, "big")


def table(limit=1000, servers=4, **more):
    flows = FlowTable(limit, timeouts(), **more)
    flows.make_room(servers)
    return flows


def whole_sweep(flows, now):
    while flows.sweep(now):
        pass


def held(flows):
    return {
        key: [State(shard.state[row]), shard.server[row], shard.seen[row]]
        for shard in flows.shards
        for key, row in shard.index.items()
    }


class Twin:
    """A dictionary of flows, all of which are examined each time."""

    def __init__(self):
        self.flows = {}

    def count(self, server, kinds):
        return sum(state in kinds for state, where, _ in self.flows.values() if where == server)

    def sweep(self, now):
        self.flows = {key: flow for key, flow in self.flows.items() if flow[2] + timeouts()[flow[0]] >= now}


steps = st.tuples(
    st.sampled_from(["add", "add", "see", "state", "move", "remove", "sweep"]),
    st.integers(0, 30),
    st.sampled_from(STATES),
    st.integers(0, 3),
    st.sampled_from([0.0, 1.0, 5.0, 40.0, 300.0]),
)


@examples(300)
@given(st.lists(steps, max_size=80))
def test_table_is_a_dictionary_of_flows_that_times_out(story):
    gone = []
    flows, twin, now = table(40_000, forgotten=gone.append), Twin(), 0.0
    for what, number, state, server, pause in story:
        now, key = now + pause, key_of(number)
        known = key in twin.flows
        if what == "add" and not known:
            assert flows.add(key, state, server, now)
            twin.flows[key] = [state, server, now]
        elif what == "sweep":
            before = set(twin.flows)
            whole_sweep(flows, now)
            twin.sweep(now)
            assert set(gone) == before - set(twin.flows)
        elif known:
            shard, row = flows.find(key)
            assert flows.is_over(shard, row, now) == (
                twin.flows[key][2] + timeouts()[twin.flows[key][0]] < now
            )
            if what == "see":
                shard.seen[row] = twin.flows[key][2] = now
            elif what == "state":
                flows.set_state(shard, row, state)
                twin.flows[key][0] = state
            elif what == "move":
                flows.move(shard, row, server)
                twin.flows[key][1] = server
            elif what == "remove":
                flows.remove(shard, key)
                del twin.flows[key]
        gone.clear()
        assert held(flows) == twin.flows
        assert len(flows) == len(twin.flows)
        for each in range(4):
            assert flows.loads.inactive[each] == twin.count(each, CLOSING)
            assert flows.loads.active[each] == twin.count(each, set(STATES) - CLOSING)
    assert sum(shard.unproven for shard in flows.shards) == sum(
        twin.count(each, UNPROVEN) for each in range(4)
    )


def test_a_flood_of_syns_displaces_itself_and_no_established_flow():
    flows = table(1000)
    for number in range(500):
        assert flows.add(key_of(number), OPEN, 0, 0.0)
    for number in range(500, 20_000):
        assert flows.add(key_of(number), SYN, 1, number / 1000)

    left = held(flows)
    assert all(key_of(number) in left for number in range(500))
    assert len(left) <= 900
    assert all(key_of(number) in left for number in range(19_700, 20_000)), "the oldest is removed first"


def test_flows_that_are_being_closed_go_next_and_then_new_ones_are_refused():
    flows = table(100)
    for number in range(50):
        flows.add(key_of(number), State.TIME_WAIT, 0, float(number))
    for number in range(50, 150):
        assert flows.add(key_of(number), OPEN, 1, 50.0)

    assert not flows.add(key_of(1000), OPEN, 1, 60.0)
    assert len(flows) == 100


def test_in_a_cache_the_oldest_makes_room():
    flows = table(100, is_cache=True)
    for number in range(100):
        flows.add(key_of(number), OPEN, 0, float(number))
    shard, row = flows.find(key_of(0))
    shard.seen[row] = 200.0

    assert flows.add(key_of(1000), OPEN, 0, 300.0)

    assert key_of(0) in held(flows)
    assert key_of(1) not in held(flows)


@pytest.mark.parametrize("limit", [1, 2, 3, 17, 16_384, 16_385])
@pytest.mark.parametrize("is_cache", [False, True])
def test_there_are_never_more_flows_than_the_limit(limit, is_cache):
    flows = table(limit, is_cache=is_cache)

    for number in range(limit * 2 + 10):
        flows.add(key_of(number), STATES[number % len(STATES)], 0, float(number))

    assert 0 < len(flows) <= limit


def test_a_large_table_has_many_small_dictionaries():
    flows = table(1 << 20)
    for number in range(100_000):
        assert flows.add(key_of(number), OPEN, 0, 0.0)

    assert len(flows.shards) == 64
    assert max(len(shard.index) for shard in flows.shards) < 2000


def test_a_step_of_a_sweep_takes_a_bounded_number_of_flows(monkeypatch):
    monkeypatch.setattr(module, "REMOVED", 10)
    flows = table(100)
    for number in range(25):
        flows.add(key_of(number), SYN, 0, 0.0)

    left = []
    while flows.sweep(61.0):
        left.append(len(flows))

    assert left == [15, 5]
    assert not held(flows)


def test_a_sweep_of_as_many_flows_as_a_step_takes_is_one_step(monkeypatch):
    monkeypatch.setattr(module, "REMOVED", 10)
    flows = table(100)
    for number in range(10):
        flows.add(key_of(number), SYN, 0, 0.0)

    assert not flows.sweep(61.0)
    assert not held(flows)


def test_a_flow_is_swept_once_its_time_is_over_and_not_before():
    flows = table()
    flows.add(key_of(1), SYN, 0, 100.0)

    whole_sweep(flows, 160.0)
    assert len(flows) == 1
    whole_sweep(flows, 160.1)
    assert len(flows) == 0


def test_other_timeouts_hold_for_flows_that_are_there():
    flows = table()
    flows.add(key_of(1), OPEN, 0, 0.0)

    flows.set_timeouts(timeouts(tcp=10))
    whole_sweep(flows, 11.0)

    assert len(flows) == 0


def test_all_flows_are_forgotten_a_shard_at_a_time():
    flows = table(40_000)
    for number in range(1000):
        flows.add(key_of(number), OPEN, 0, 0.0)

    left = [len(flows) for _ in flows.clear()]

    assert len(left) == 4
    assert left == sorted(left, reverse=True)
    assert (flows.loads.active, flows.loads.inactive) == ([0] * 4, [0] * 4)


def test_a_table_is_as_new_once_all_of_its_flows_are_forgotten():
    flows = table(40_000, forgotten=lambda _: None)
    for number in range(100):
        flows.add(key_of(number), SYN, 0, 0.0)
    for _ in flows.clear():
        pass

    assert not flows.sweep(1000.0), "there is nothing to look at"
    assert flows.add(key_of(1), OPEN, 2, 5.0)
    assert held(flows) == {key_of(1): [OPEN, 2, 5.0]}
    whole_sweep(flows, 1e6)
    assert held(flows) == {}
    assert not flows.sweep(1e6)


def test_rows_are_used_again():
    flows = table(10)
    for number in range(1000):
        assert flows.add(key_of(number), OPEN, 0, 0.0)
        flows.remove(flows.find(key_of(number))[0], key_of(number))

    assert len(flows.shards[0].keys) == 1


def test_a_million_flows_of_ipv6_take_less_than_200_megabytes():
    flows = FlowTable(SHARD, timeouts())
    flows.make_room(1)
    for number in range(SHARD):
        assert flows.add(number.to_bytes(37, "big"), OPEN, 0, 0.0)
    (shard,) = flows.shards

    parts = [
        shard.index,
        shard.keys,
        shard.free,
        shard.seen,
        shard.state,
        shard.server,
        shard.told,
        *shard.keys,
    ]

    assert sum(map(sys.getsizeof, parts)) / SHARD < 200


def test_news_are_of_flows_that_were_proven_or_closed_and_bounded(monkeypatch):
    monkeypatch.setattr(module, "NEWS", 3)
    flows = table()
    flows.keep_news(is_wanted=True)
    for number in range(5):
        flows.add(key_of(number), SYN, 0, 0.0)
        flows.set_state(*flows.find(key_of(number)), OPEN)

    assert list(flows.news) == [key_of(2), key_of(3), key_of(4)]
    flows.keep_news(is_wanted=False)
    assert flows.news is None


def test_news_may_be_of_flows_alone_that_are_proven_or_known_to_another_director():
    flows = table()
    flows.keep_news(is_wanted=True)
    flows.news_of_all = False
    for number in range(4):
        flows.add(key_of(number), SYN if number == 3 else OPEN, 0, 0.0)
    flows.find(key_of(1))[0].note_told(flows.find(key_of(1))[1])
    flows.find(key_of(2))[0].note_learnt(flows.find(key_of(2))[1])
    for number in range(3):
        flows.set_state(*flows.find(key_of(number)), State.FIN_WAIT)
    flows.set_state(*flows.find(key_of(3)), OPEN)

    assert list(flows.news) == [key_of(1), key_of(2), key_of(3)]


def test_servers_that_come_later_leave_the_counts_of_the_others_alone():
    flows = table(servers=1)
    flows.add(key_of(1), OPEN, 0, 0.0)
    flows.add(key_of(2), SYN, 0, 0.0)
    active, inactive = list(flows.loads.active), list(flows.loads.inactive)

    flows.make_room(3)

    assert (flows.loads.active, flows.loads.inactive) == ([*active, 0, 0], [*inactive, 0, 0])


def test_keys_are_those_of_open_flows_or_of_those_with_packets_that_nobody_was_told_of():
    flows = table(40_000)
    for number, state in enumerate(STATES * 3):
        flows.add(key_of(number), state, 0, 10.0)
    is_open = {key_of(number) for number, state in enumerate(STATES * 3) if state in states.OPEN}
    for number in range(len(STATES), 3 * len(STATES)):
        shard, row = flows.find(key_of(number))
        if number < 2 * len(STATES):
            shard.note_told(row)
        else:
            shard.note_learnt(row)
    again = {key_of(number) for number in range(len(STATES) + 2, 3 * len(STATES), 2)}
    for key in again:
        shard, row = flows.find(key)
        shard.seen[row] = 11.0

    news = {key_of(number) for number in range(len(STATES))} | again

    assert sorted(flows.open_keys(is_all=True)) == sorted(is_open)
    assert sorted(flows.open_keys(is_all=False)) == sorted(is_open & news)


def test_flows_that_go_while_keys_are_told_are_not_told():
    flows = table()
    for number in range(10):
        flows.add(key_of(number), OPEN, 0, 10.0)
    keys = flows.open_keys(is_all=True)
    told = [next(keys)]
    for number in range(1, 10, 2):
        flows.remove(flows.find(key_of(number))[0], key_of(number))
    flows.add(key_of(99), OPEN, 0, 10.0)  # in place of one that was removed

    told += keys

    assert told == [key_of(0), *(key_of(number) for number in (2, 4, 6, 8)), key_of(99)]
