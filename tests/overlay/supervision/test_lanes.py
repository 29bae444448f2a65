from __future__ import annotations

import os

import pytest

from overlay.supervision.lanes import Chosen, choose, choose_here, is_compiled, notes, processors

ABLE = {"is_tap": False, "is_privileged": True, "is_compiled": True}


@pytest.mark.parametrize(
    ("cores", "lanes"), [(1, 1), (2, 1), (3, 2), (4, 2), (6, 2), (7, 4), (8, 4), (16, 4), (128, 4)]
)
def test_a_node_that_was_told_nothing_has_a_lane_for_every_other_core_of_many(cores, lanes):
    assert choose(None, cores, **ABLE) == (lanes, None)


@pytest.mark.parametrize("wanted", [1, 2, 4, 8])
def test_a_node_has_the_lanes_that_it_was_told(wanted):
    assert choose(wanted, 2, **ABLE) == (wanted, None)


@pytest.mark.parametrize(
    ("lacks", "why"),
    [
        ({"is_tap": True}, "a tap device has one"),
        ({"is_privileged": False}, "an agent without root has one"),
        (
            {"is_compiled": False},
            "only the compiled packet path has several, which this installation does not have or use",
        ),
    ],
)
def test_a_node_that_cannot_have_the_lanes_that_it_was_told_says_why(lacks, why):
    assert choose(4, 8, **ABLE | lacks) == (
        1,
        f"this node has one lane instead of the 4 that --lanes asks for: {why}",
    )


@pytest.mark.parametrize("lacks", [{"is_tap": True}, {"is_privileged": False}, {"is_compiled": False}])
@pytest.mark.parametrize("wanted", [None, 1])
def test_a_node_that_was_not_told_several_says_nothing(wanted, lacks):
    assert choose(wanted, 8, **ABLE | lacks) == (1, None)


def test_only_processors_that_this_process_may_use_count():
    assert processors() == len(os.sched_getaffinity(0))


def test_no_packet_path_is_compiled_where_the_environment_says_so(monkeypatch):
    monkeypatch.setenv("OVERLAY_NATIVE", "0")

    assert not is_compiled()


def test_the_packet_path_is_compiled_where_it_was_built(monkeypatch):
    native = pytest.importorskip("overlay.forwarding.native")
    monkeypatch.delenv("OVERLAY_NATIVE", raising=False)
    if native.core is None:
        pytest.skip(f"no compiled packet path: {native.missing}")

    assert is_compiled()


def test_a_choice_for_this_host_knows_its_processors():
    assert choose_here(None, is_tap=True, is_privileged=True) == (1, None)
    assert choose_here(None, is_tap=False, is_privileged=True).lanes <= max(1, processors() // 2)


@pytest.mark.parametrize(
    ("wanted", "chosen", "queues", "told"),
    [
        (4, Chosen(4), 4, []),
        (None, Chosen(4), 1, []),
        (4, Chosen(1, "a reason"), 1, ["a reason"]),
        (
            4,
            Chosen(4),
            1,
            [
                (
                    "this node has one lane instead of the 4 that --lanes asks for: its persistent device was made "
                    "without multi_queue"
                )
            ],
        ),
    ],
)
def test_what_was_asked_for_and_is_not_there_is_noted(wanted, chosen, queues, told):
    assert notes(wanted, chosen, queues) == told
