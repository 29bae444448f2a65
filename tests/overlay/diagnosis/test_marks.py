from __future__ import annotations

import dataclasses

import pytest

from overlay.diagnosis.marks import check_marks
from overlay.host.netlink.marked_rules import MarkedRule
from overlay.host.plan import HostPlan
from tests.overlay.diagnosis.examples import facts


def rule(mark, mask=0xFFFFFFFF, *, is_inverted=False):
    return MarkedRule(4, 32765, mark, mask, 51820, is_inverted)


@pytest.mark.parametrize(
    ("found", "way"),
    [
        (rule(77), "by table 51820"),
        (rule(77, is_inverted=True), "past table 51820"),
        (rule(13, 0x0F), "by table 51820"),
    ],
)
def test_rule_that_goes_by_our_mark_is_found(found, way):
    (finding,) = check_marks(facts(plan=HostPlan(1420, fwmark=77), rules=[rule(5), found]))

    assert finding.name == "mark_shared"
    assert "(priority 32765) matches the firewall mark 77" in finding.problem
    assert way in finding.problem


@pytest.mark.parametrize("mark", [None, 78])
def test_rule_for_another_mark_is_not_found(mark):
    assert not list(check_marks(facts(plan=HostPlan(1420, fwmark=mark), rules=[rule(77)])))


def test_mark_that_the_maker_of_the_rules_has_given_a_bare_node_is_not_found():
    made = facts(plan=HostPlan(1420, fwmark=77), rules=[rule(77, is_inverted=True)])
    bare = dataclasses.replace(made, node=dataclasses.replace(made.node, is_bare=True))

    assert not list(check_marks(bare))
