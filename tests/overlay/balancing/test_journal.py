"""Log lines on services."""

from __future__ import annotations

import logging

import pytest

from overlay.balancing import journal
from overlay.services.directors import ActiveChanged, Announce
from overlay.services.health import ByHand, QuorumChanged, ServerChanged
from overlay.wire.control import Presence
from tests.overlay.balancing.test_balancing import node

SERVERS = node().table.services["web"].servers


@pytest.fixture
def logged(caplog):
    caplog.set_level(logging.INFO, logger="overlay")
    return lambda: [record.getMessage() for record in caplog.records]


def test_servers_and_quorums_are_logged_with_what_an_operator_looks_for(logged):
    journal.log_news(
        [
            ("web", ServerChanged(SERVERS[0], False, "no answer in 5 s")),
            ("web", ServerChanged(SERVERS[0], True, "it answers")),
            ("web", QuorumChanged(False, 1, 2)),
            ("web", QuorumChanged(True, 2, 2)),
        ]
    )
    assert logged() == [
        "server down service=web server=web1: no answer in 5 s",
        "server up service=web server=web1: it answers",
        "service has lost its quorum service=web live=1 needed=2",
        "service has its quorum service=web live=2 needed=2",
    ]


def test_who_balances_is_logged_and_what_directors_say_is_not(logged):
    group = ("lb1", "lb2")
    journal.log_active(
        [Announce(("lb2",), Presence(1, False, ())), ActiveChanged(group, "lb2", "lb1 is silent")]
    )
    assert logged() == ["services balanced by director=lb2 because lb1 is silent"]


def test_setting_by_hand_is_logged(logged):
    journal.log_by_hand("web", "web2:0", ByHand(is_drained=True))
    journal.log_by_hand("web", "web2:0", ByHand(5))
    assert logged() == [
        "server set by hand service=web server=web2:0 to=drained weight=-",
        "server set by hand service=web server=web2:0 to=enabled weight=5",
    ]


def test_hooks_hear_of_servers_and_of_quorums():
    heard = []

    journal.tell_news(
        [("web", ServerChanged(SERVERS[0], False, "no answer")), ("web", QuorumChanged(False, 1, 2))],
        lambda event, **fields: heard.append((event, fields)),
    )

    assert heard == [
        ("service", {"service": "web", "server": "web1", "is_up": False, "reason": "no answer"}),
        ("service", {"service": "web", "has_quorum": False, "live_weight": 1, "needed_weight": 2}),
    ]
