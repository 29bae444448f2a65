from overlay.cli.services.elsewhere import describe_differences
from tests.overlay.cli.services.rows import SERVER, SERVICE

DOWN = {"director": "lb2", "state": "down", "effective_weight": 0, "since_s": 12.0}
UNKNOWN = {"director": "lb3", "state": None, "effective_weight": None, "since_s": None}


def told(*differs_at, not_heard=()):
    return SERVICE | {"servers": [SERVER | {"differs_at": [*differs_at]}], "not_heard": [*not_heard]}


def test_directors_that_agree_need_no_words():
    assert describe_differences(told()) == []


def test_each_difference_is_a_line():
    assert describe_differences(told(DOWN, UNKNOWN)) == [
        "web1 is down at lb2, weight 0, for 12 s",
        "lb3 does not know web1: it has a different peers file",
    ]


def test_unknown_view_is_reported_and_not_assumed_to_be_the_same():
    assert describe_differences(told(not_heard=["lb2"])) == [
        "the view of lb2 is not known: nothing has been heard from there"
    ]
    many = [f"node{number}" for number in range(8)]
    assert describe_differences(told(not_heard=many)) == [
        (
            "the view of node0, node1, node2, node3, node4 and 3 more is not known: nothing has been heard from "
            "there"
        )
    ]
