from __future__ import annotations

import pytest

from overlay.cli.grouping import EACH, NAMED, group


def finding(name, peer):
    return {"name": name, "peer": peer, "severity": "error", "problem": f"{name} of {peer}", "remedy": None}


def of_peers(count, name="no_answer"):
    return [finding(name, f"peer{number}") for number in range(count)]


def told(findings):
    return [(each.first["problem"], each.others) for each in group(findings)]


def test_each_kind_that_many_peers_have_is_one_group_where_its_first_was():
    here, there = finding("forwarding", None), finding("mtu", None)

    groups = told([here, *of_peers(EACH + 1), there, *of_peers(EACH + 1, "silent")])

    others = [f"peer{number}" for number in range(1, EACH + 1)]
    assert groups == [
        ("forwarding of None", []),
        ("no_answer of peer0", others),
        ("mtu of None", []),
        ("silent of peer0", others),
    ]


def test_finding_of_few_peers_or_several_of_the_host_are_shown_one_by_one():
    findings = [*of_peers(EACH), *[finding("service", None)] * (EACH + 5)]

    assert [each.first for each in group(findings)] == findings


@pytest.mark.parametrize(("others", "left"), [(NAMED, None), (NAMED + 1, 1), (9_999, 9_999 - NAMED)])
def test_no_more_others_are_named_than_people_read(others, left):
    (one,) = group(of_peers(others + 1))

    sentence = one.describe_others()

    assert sentence.count("peer") == NAMED + 1
    assert f"to {others} other peers: peer1, peer2" in sentence
    assert (f" and {left} more" in sentence) == (left is not None)


def test_group_of_one_names_nobody():
    (one,) = group([finding("no_answer", "tokyo")])

    assert one.describe_others() is None
