import pytest

from tests.overlay.cli.services.rows import SERVER

DONE = {
    "ok": True,
    "server": SERVER | {"state": "drained", "effective_weight": 0},
    "unconfirmed": [],
    "deaf": [],
}


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        (("drain", "web/web1"), {"what": "drain"}),
        (("disable", "web/web1"), {"what": "disable"}),
        (("enable", "web/web1"), {"what": "enable"}),
        (("weight", "web/web1", "5"), {"what": "weight", "weight": 5}),
    ],
)
def test_setting_is_asked_for_and_what_came_of_it_is_shown(overlay, agent, arguments, asked):
    agent.answers["set_server"] = DONE

    result = overlay("services", *arguments)

    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == "web/web1 is drained, with a weight of 0\n"
    assert agent.requests == [{"op": "set_server", "name": "web/web1", **asked}]


def test_directors_that_did_not_confirm_are_named_with_what_follows(overlay, agent):
    agent.answers["set_server"] = DONE | {"unconfirmed": ["lb2"], "deaf": ["lb3"]}

    result = overlay("services", "drain", "web/web1")

    assert result.exit_code == 1
    assert result.stdout == "web/web1 is drained, with a weight of 0\n"
    assert result.stderr == (
        "Error: set here, but not confirmed by lb2: a running director with the same peers file adopts it once it "
        "can be reached; and not sent to lb3, whose tunnel carries no in-band messages: repeat the command there\n"
    )


def test_directors_that_are_named_are_a_few(overlay, agent):
    agent.answers["set_server"] = DONE | {"unconfirmed": [f"node{number}" for number in range(900)]}

    result = overlay("services", "drain", "web/web1")

    assert "not confirmed by node0, node1, node2, node3, node4 and 895 more: " in result.stderr
