import json

import pytest

from overlay.documents import renamed
from tests.overlay.cli.services.rows import ANSWER, SERVICE


def test_json_has_what_the_agent_says(overlay, agent):
    agent.answers["services"] = ANSWER

    result = overlay("services", "--json")

    assert (result.exit_code, result.stderr) == (0, "")
    told = json.loads(result.stdout)
    assert told["services"] == renamed([SERVICE])
    assert told.keys() == {"schema", "services", "notes", "rates_over_seconds", "drops"}
    assert "since_seconds" in told["services"][0]["servers"][0]
    assert agent.requests == [{"op": "services", "name": None}]


def test_counters_that_are_not_known_fail_after_the_rest_was_shown(overlay, agent):
    agent.answers["services"] = ANSWER | {"is_complete": False}

    result = overlay("services", "web")

    assert result.exit_code == 1
    assert result.stdout.startswith("web: up\n")
    assert result.stderr == "Error: the forwarder of overlay0 did not report its counters\n"


def test_name_that_is_not_known_is_a_mistake(overlay, agent):
    agent.answers["services"] = {
        "ok": False,
        "kind": "unknown_service",
        "error": "there is no service 'wep'",
        "known": ["web"],
    }

    result = overlay("services", "wep")

    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.endswith("Error: there is no service 'wep': there are web\n")


def test_an_agent_of_another_version_is_a_sentence(overlay, agent):
    agent.answers["services"] = {"ok": True, "services": [], "is_complete": True}

    result = overlay("services")

    assert result.exit_code == 1
    assert result.stderr == (
        "Error: the agent of overlay0 is of another version than this command: start it again\n"
    )


def test_watching_goes_on_while_the_agent_is_away(overlay, agent, clock):
    agent.answers["services"] = ANSWER
    turns = []

    def on_sleep():
        turns.append(clock.time)
        if len(turns) == 2:
            agent.stop()
        if len(turns) == 4:
            raise KeyboardInterrupt

    clock.on_sleep = on_sleep

    result = overlay("services", "--watch", "--json")

    lines = result.stdout.splitlines()
    assert len(lines) == 2
    assert all(json.loads(line)["services"] == renamed([SERVICE]) for line in lines)
    assert "no overlay agent runs for overlay0 here" in result.stderr


@pytest.mark.parametrize("arguments", [("services",), ("services", "web"), ("services", "list", "web")])
def test_without_an_agent_nothing_is_listed(overlay, arguments):
    result = overlay(*arguments)

    assert (result.exit_code, result.stdout) == (1, "")
    assert "no overlay agent runs" in result.stderr
