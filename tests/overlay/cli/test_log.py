"""overlay log."""

from __future__ import annotations

import json
import re

PLACE = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d"


def event(number, text, level="info", peer=None):
    return {"number": number, "timestamp_seconds": 1.8e9 + number, "level": level, "text": text, "peer": peer}


def answer(last, run="a", **fields):
    return {"ok": True, "run": run, "last": last, "is_complete": True} | fields


def test_events_are_shown_as_lines_of_the_log(agent, overlay):
    agent.answers["events"] = answer(2)
    agent.rows["events"] = [[event(1, "ready node=paris")], [event(2, "peer lost \x1b[2J", "warning")]]

    result = overlay("log")

    assert result.exit_code == 0
    first, second = result.stdout.splitlines()
    assert re.fullmatch(rf"{PLACE} INFO ready node=paris", first)
    assert re.fullmatch(rf"{PLACE} WARNING peer lost \\x1b\[2J", second)


def test_what_is_asked_for_is_what_the_options_say(agent, overlay):
    agent.answers["events"] = answer(0)

    overlay("log", "tokyo", "-n", "7", "--level", "WARNING")

    (request,) = agent.requests
    assert request == {"op": "events", "limit": 7, "since": 0, "level": "warning", "name": "tokyo"}


def test_json_has_a_schema(agent, overlay):
    agent.answers["events"] = answer(1)
    agent.rows["events"] = [[event(1, "ready", peer="tokyo")]]

    told = json.loads(overlay("log", "--json").stdout)

    events = [event(1, "ready", peer="tokyo")]
    assert told == {"schema": 1, "run": "a", "last": 1, "is_complete": True, "events": events}


def test_a_peer_that_is_not_there_is_a_wrong_use(agent, overlay):
    agent.answers["events"] = {
        "ok": False, "kind": "unknown_peer", "error": "there is no peer tokio", "known": ["tokyo"],
    }  # fmt: skip

    result = overlay("log", "tokio")

    assert (result.exit_code, result.stderr) == (2, "Error: there is no peer tokio; did you mean tokyo?\n")


def follow(agent, clock, overlay, turns, *options):
    """Follow the log of *agent*, which runs one of *turns* before each question; Ctrl-C after the last."""
    left = iter(turns)

    def step():
        try:
            next(left)()
        except StopIteration:
            raise KeyboardInterrupt from None

    clock.on_sleep = step
    return overlay("log", "--follow", *options)


def say(agent, reply, *events):
    def turn():
        agent.answers["events"], agent.rows["events"] = reply, [list(events)]

    return turn


def test_following_asks_for_what_is_newer(agent, clock, overlay):
    say(agent, answer(5), event(5, "five"))()

    result = follow(agent, clock, overlay, [say(agent, answer(7), event(7, "seven")), say(agent, answer(7))])

    assert result.exit_code == 130
    assert [line.split()[-1] for line in result.stdout.splitlines()] == ["five", "seven"]
    assert [request["since"] for request in agent.requests] == [0, 5, 7]


def test_following_goes_on_with_an_agent_that_was_started_again(agent, clock, overlay):
    say(agent, answer(500), event(500, "old"))()

    result = follow(agent, clock, overlay, [say(agent, answer(1, "b"), event(1, "new"))])

    assert [line.split()[-1] for line in result.stdout.splitlines()] == ["old", "new"]
    assert [request["since"] for request in agent.requests] == [0, 500, 0]
    assert "another agent of overlay0 has started" in result.stderr


def test_following_waits_for_an_agent_that_is_gone_and_says_so_once(agent, clock, overlay):
    say(agent, answer(0))()

    result = follow(agent, clock, overlay, [agent.stop, lambda: None, lambda: None])

    assert result.stderr.count("no overlay agent runs for overlay0 here") == 1


def test_following_says_that_events_are_missing(agent, clock, overlay):
    say(agent, answer(5))()

    result = follow(agent, clock, overlay, [say(agent, answer(9999, is_complete=False), event(9999, "x"))])

    assert result.stderr == "Warning: more events occurred than the agent keeps: some are missing here\n"


def test_following_in_json_has_an_event_on_each_line(agent, clock, overlay):
    say(agent, answer(2), event(1, "a"), event(2, "b"))()

    result = follow(agent, clock, overlay, [], "--json")

    assert [json.loads(line)["text"] for line in result.stdout.splitlines()] == ["a", "b"]


def test_without_an_agent_there_is_a_sentence(overlay):
    result = overlay("log")

    assert result.exit_code == 1
    assert result.stderr.startswith("Error: no overlay agent runs for overlay0 here")
