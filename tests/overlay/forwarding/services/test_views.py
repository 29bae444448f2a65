from __future__ import annotations

import pytest

from overlay.forwarding.services.views import View
from overlay.services.schedulers import SCHEDULERS, Loads, Real

REALS = [Real(f"web{number}:0", 1, number) for number in range(3)]


def prepared(scheduler):
    while scheduler.prepare():
        pass
    return scheduler


@pytest.mark.parametrize("kind", ["maglev", "sh"])
def test_a_view_chooses_as_a_director_does_that_has_these_weights(kind):
    there = SCHEDULERS[kind].make()
    there.set_servers([REALS[0], Real("web1:0", 0, 1), Real("web2:0", 7, 2)])
    prepared(there)
    view = View(SCHEDULERS[kind].make())
    view.set_weights(0, REALS, (1, 0, 7), None)
    prepared(view.scheduler)

    flows = range(0, 2**32, 2**32 // 500)
    assert [view.choose(flow) for flow in flows] == [there.choose(flow, Loads()) for flow in flows]


@pytest.mark.parametrize(("weights", "expected"), [((1, 1, 1, 1), 9), ((0, 0, 1, 0), 2)])
def test_all_flows_go_to_the_sorry_server_where_it_has_a_weight(weights, expected):
    view = View(prepared(SCHEDULERS["maglev"].make()))
    view.set_weights(0, REALS, weights, 9)
    prepared(view.scheduler)

    assert {view.choose(flow) for flow in range(0, 2**32, 2**28)} == {expected}


def test_there_is_no_server_where_all_weights_are_0():
    view = View(SCHEDULERS["sh"].make())
    view.set_weights(0, REALS, (0, 0, 0), None)

    assert view.choose(5) is None
