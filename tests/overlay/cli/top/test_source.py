"""The questions to the agent."""

from __future__ import annotations

import click
import pytest

from overlay.cli.exits import Failure
from overlay.cli.top.source import HISTORIES, HISTORY_INTERVAL, SHARE, Source
from overlay.errors import HostError
from tests.overlay.cli.fakes import STATUS, peer_status

EVENTS = {"ok": True, "run": "a", "last": 7, "is_complete": True}


@pytest.fixture
def source(agent, surroundings, clock):
    """Asks an agent that has everything."""
    agent.answers |= {
        "status": {"ok": True, "status": STATUS | {"peers": [peer_status("tokyo")]}},
        "events": EVENTS,
        "history": {"ok": True, "history": {}},
        "services": {"ok": True, "services": [{"name": "web", "state": "up"}]},
    }
    agent.rows |= {"history": [[{"name": "tokyo", "is_kept": True}]], "events": [[{"number": 7}]]}
    ctx = click.Context(click.Command("top"), obj=surroundings)
    return Source(ctx, "overlay0", clock.now)


def asked(agent, op):
    return [request for request in agent.requests if request["op"] == op]


def test_events_are_asked_for_from_the_last_one_on(agent, source):
    assert source.read(()).events == [{"number": 7}]
    source.read(())

    assert [request["since"] for request in asked(agent, "events")] == [0, 7]


def test_another_agent_is_noticed(agent, source):
    source.read(())
    agent.answers["events"] = EVENTS | {"run": "b", "last": 1}

    assert source.read(()).has_restarted
    assert [request["since"] for request in asked(agent, "events")] == [0, 7, 0]


def test_history_is_asked_for_what_is_seen_when_there_may_be_news(agent, source, clock):
    assert source.read(["tokyo"]).history == {"tokyo": {"name": "tokyo", "is_kept": True}}
    assert source.read(["tokyo"]).history == {}
    clock.time += HISTORY_INTERVAL
    source.read(["tokyo"])

    assert len(asked(agent, "history")) == 2
    source.read([f"peer{number}" for number in range(HISTORIES + 50)])
    assert len(asked(agent, "history")) == 2 + HISTORIES


def test_a_peer_that_was_removed_has_no_history(agent, source):
    agent.answers["history"] = {
        "ok": False,
        "kind": "unknown_peer",
        "error": "there is no peer tokyo",
        "known": [],
    }

    assert source.read(["tokyo"]).history == {}


def test_services_are_asked_for_where_there_are_some(agent, source):
    assert source.read(()).services == ()
    agent.answers["status"]["status"]["services"] = {"up": 1}

    assert source.read(()).services == [{"name": "web", "state": "up"}]
    assert len(asked(agent, "services")) == 1


def test_an_agent_that_takes_long_is_asked_less_often(agent, source, clock):
    def slow(_):
        clock.time += 3.0
        return EVENTS

    agent.answers["events"] = slow
    source.read(())

    assert source.pause == pytest.approx(3.0 * SHARE)


def test_errors_are_those_of_every_command(agent, source):
    agent.answers["status"] = {"ok": True, "status": {}}
    with pytest.raises(Failure, match="of another version"):
        source.read(())
    agent.stop()
    with pytest.raises(HostError, match="no overlay agent runs"):
        source.read(())
