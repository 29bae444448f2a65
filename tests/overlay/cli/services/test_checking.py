import json

import pytest

GOOD = {"ok": True, "is_good": True, "checks": 1, "state": "up", "reason": "answers 200"}
ROWS = [
    [{"step": "web/web1 is the peer web1", "seconds": 0.0}],
    [{"check": "http", "name": "page", "address": "203.0.113.80", "port": 80}],
    [],
    [{"step": "connected from port 4000", "seconds": 0.0123}],
    [{"is_good": True, "reason": "answers 200", "weight": None, "seconds": 0.02}],
]


def test_steps_are_shown_with_their_times(overlay, agent):
    agent.answers["check_server"], agent.rows["check_server"] = GOOD, ROWS

    result = overlay("services", "check", "web/web1")

    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == (
        "       0.0 ms  web/web1 is the peer web1\n"
        "check page of kind http at 203.0.113.80:80\n"
        "      12.3 ms  connected from port 4000\n"
        "      20.0 ms  good: answers 200\n"
        "by its regular checks, web/web1 is up (answers 200)\n"
    )
    assert agent.requests == [{"op": "check_server", "name": "web/web1"}]


@pytest.mark.parametrize(("verdict", "word"), [(False, "bad"), (None, "not asked")])
def test_a_check_that_is_not_good_fails(overlay, agent, verdict, word):
    agent.answers["check_server"] = GOOD | {"is_good": False}
    agent.rows["check_server"] = [*ROWS[:4], [{"is_good": verdict, "reason": "no", "seconds": 5.0}]]

    result = overlay("services", "check", "web/web1")

    assert result.exit_code == 1
    assert f"{word}: no\n" in result.stdout
    assert result.stderr == "Error: web/web1 did not pass\n"


def test_json_has_each_check_with_its_steps(overlay, agent):
    agent.answers["check_server"], agent.rows["check_server"] = GOOD, ROWS

    told = json.loads(overlay("services", "check", "web/web1", "--json").stdout)

    assert (told["server"], told["is_good"], told["state"]) == ("web/web1", True, "up")
    (check,) = told["checks"]
    assert (check["check"], check["is_good"], check["steps"][0]["step"]) == (
        "http",
        True,
        "connected from port 4000",
    )
    assert told["steps"] == ROWS[0]


def test_a_server_without_checks_is_up(overlay, agent):
    agent.answers["check_server"] = GOOD | {"checks": 0, "reason": ""}
    agent.rows["check_server"] = ROWS[:1]

    assert overlay("services", "check", "web/web1").stdout.endswith(
        "web/web1 has no checks, so it counts as up; it is up\n"
    )


def test_a_name_that_is_not_known_is_a_mistake(overlay, agent):
    agent.answers["check_server"] = {
        "ok": False,
        "kind": "unknown_service",
        "error": "there is no server of web 'x'",
        "known": ["web1"],
    }

    result = overlay("services", "check", "web/x")

    assert (result.exit_code, result.stdout) == (2, "")
    assert "there is no server of web 'x': there are web1" in result.stderr
