"""overlay log-level."""

from __future__ import annotations

import json

import pytest


@pytest.mark.parametrize(
    ("arguments", "former", "now", "sentence"),
    [
        ((), "info", "info", "the log level of overlay0 is info"),
        (("debug",), "info", "debug", "the log level of overlay0 is debug; it was info"),
        (("INFO",), "info", "info", "the log level of overlay0 was already info"),
    ],
)
def test_the_level_is_shown_and_set(agent, overlay, arguments, former, now, sentence):
    agent.answers["log_level"] = {"ok": True, "schema": 1, "level": now, "former_level": former}

    result = overlay("log-level", *arguments)

    assert (result.exit_code, result.stdout) == (0, f"{sentence}\n")
    assert [request.get("level") for request in agent.requests] == [now if arguments else None]


def test_json_has_a_schema(agent, overlay):
    told = {"schema": 1, "level": "debug", "former_level": "info"}
    agent.answers["log_level"] = {"ok": True} | told

    assert json.loads(overlay("log-level", "debug", "--json").stdout) == told


def test_another_word_is_a_wrong_use(overlay):
    assert overlay("log-level", "loud").exit_code == 2
