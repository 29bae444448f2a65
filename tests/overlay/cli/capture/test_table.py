"""The table by which a running capture names packets."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from overlay.cli.capture.table import AGAIN, SHARE, PeerNames
from overlay.cli.exits import Failure
from overlay.errors import HostError

ADDRESS = ip_address("10.244.2.7").packed


class Agent:
    """Answers with the table in force, after *takes* seconds each; *error* is raised instead."""

    def __init__(self):
        self.name, self.number, self.asked = "tokyo", 1, []
        self.error, self.takes, self.now = None, 0.0, 100.0

    def ask(self, message, take):
        self.asked.append(message)
        self.now += self.takes
        if self.error is not None:
            raise self.error
        if message.get("table") != self.number:
            take([{"number": 1, "name": self.name, "prefixes": ["10.244.2.0/24"], "endpoint": None}])
        return {"ok": True, "capture": {"table": self.number, "node": "paris"}}


@pytest.fixture
def agent():
    return Agent()


def begin(agent, *, follows_endpoints=False):
    table = PeerNames(agent.ask, lambda: agent.now, follows_endpoints=follows_endpoints)
    assert table.read(snaplen=96)["node"] == "paris"
    return table


def test_packets_are_named_by_a_table_that_is_reloaded_later(agent):
    table = begin(agent)
    assert table.whose.at(ADDRESS) == "tokyo"
    agent.name, agent.number = "osaka", 2

    table.follow()
    assert table.whose.at(ADDRESS) == "tokyo"  # it is asked from time to time
    agent.now += AGAIN
    table.follow()

    assert table.whose.at(ADDRESS) == "osaka"


def test_unchanged_table_is_not_sent_again(agent):
    table = begin(agent)
    agent.now += AGAIN

    table.follow()

    assert agent.asked == [{"op": "capture", "snaplen": 96}, {"op": "capture", "table": 1}]
    assert table.whose.at(ADDRESS) == "tokyo"


def test_endpoints_are_asked_for_though_the_table_is_the_same(agent):
    table = begin(agent, follows_endpoints=True)
    agent.name = "osaka"
    agent.now += AGAIN

    table.follow()

    assert agent.asked[-1] == {"op": "capture"}
    assert table.whose.at(ADDRESS) == "osaka"


@pytest.mark.parametrize("error", [HostError("no answer"), Failure("refused"), ValueError("no answer")])
def test_capture_goes_on_by_what_is_known_while_the_agent_does_not_answer(agent, error):
    table = begin(agent)
    agent.error, agent.takes = error, 10.0
    agent.now += AGAIN

    table.follow()
    table.follow()
    assert len(agent.asked) == 2  # it is left alone after that
    agent.error, agent.name, agent.number = None, "osaka", 2
    agent.now += SHARE * 10.0
    table.follow()

    assert table.whose.at(ADDRESS) == "osaka"


def test_answer_of_another_kind_is_refused():
    table = PeerNames(lambda *_: {"ok": True}, follows_endpoints=False)

    with pytest.raises(ValueError, match="not about a capture"):
        table.read()
