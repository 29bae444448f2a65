from __future__ import annotations

import json

import pytest

from tests.overlay.cli.fakes import STATUS


@pytest.mark.parametrize(
    ("arguments", "exit_code", "kind", "said"),
    [
        (("status",), 1, "no_agent", "no overlay agent runs for overlay0 here"),
        (("status", "tokyo"), 1, "no_agent", "no overlay agent runs"),
        (("ping", "tokyo"), 1, "no_agent", "no overlay agent runs"),
        (("services",), 1, "no_agent", "no overlay agent runs"),
        (("services", "--flows"), 1, "no_agent", "no overlay agent runs"),
        (("services", "check", "web/web1"), 1, "no_agent", "no overlay agent runs"),
        (("cni", "list"), 1, "no_agent", "no overlay agent runs"),
        (("log",), 1, "no_agent", "no overlay agent runs"),
        (
            ("check", "--peers", "/nowhere/peers.toml"),
            2,
            "usage",
            "/nowhere/peers.toml: there is no such file",
        ),
        (("check", "--peers", "consul:x"), 2, "usage", "there is no store named consul"),
        (("status", "--max-silence", "3"), 2, "usage", "--max-silence needs --check"),
        (("ping", "tokyo", "--count", "0"), 2, "usage", "'0' is not a number from 1 to"),
        (("status", "--interface", "a/b"), 2, "usage", "is not an interface name"),
        (("status", "--nonsense"), 2, "usage", "does not have an option --nonsense"),
        (("network", "show", "--nonsense"), 2, "usage", "does not have an option --nonsense"),
    ],
)
def test_errors_are_json_where_json_was_asked_for(overlay, arguments, exit_code, kind, said):
    result = overlay(*arguments, "--json")

    answer = json.loads(result.stdout)
    assert (result.exit_code, answer["schema"], answer["error"]["kind"]) == (exit_code, 1, kind)
    assert said in answer["error"]["message"]
    assert said in result.stderr


def test_error_that_follows_a_result_does_not_take_its_place(overlay, agent):
    agent.answers["status"] = {"ok": True, "status": STATUS | {"is_complete": False}}

    result = overlay("status", "--json")

    assert result.exit_code == 1
    assert json.loads(result.stdout)["node"] == "paris"


def test_error_without_json_is_a_sentence_alone(overlay):
    assert overlay("status").stdout == ""
