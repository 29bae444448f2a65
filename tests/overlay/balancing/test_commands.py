"""Commands of the peers file: run without privileges, with a description of the event on standard input."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import tempfile
from pathlib import Path

import pytest
import trio

from overlay.balancing import commands
from overlay.services.health import QuorumChanged, ServerChanged
from tests.overlay.balancing.test_balancing import node

SERVICE = node().table.services["web"]


@pytest.fixture
def drop():
    """A folder that everybody may write to."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o777)
        yield Path(name)


def run(event, **keys):
    trio.run(commands.run, dataclasses.replace(SERVICE, **keys), event)


def saving(path):
    return ("/bin/sh", "-c", f"cat > {path}; id -u >> {path}")


def user_of(text):
    return text.splitlines()[-1]


@pytest.mark.parametrize(
    ("key", "event", "told"),
    [
        ("up_command", ServerChanged(SERVICE.servers[0], True, "it answers"),
         {"server": "web1", "peer": "web1", "is_up": True, "reason": "it answers"}),
        ("down_command", ServerChanged(SERVICE.servers[1], False, "it does not"),
         {"server": "web2", "peer": "web2", "is_up": False, "reason": "it does not"}),
        ("quorum_up_command", QuorumChanged(True, 4, 2), {"has_quorum": True, "live": 4}),
        ("quorum_down_command", QuorumChanged(False, 1, 2), {"has_quorum": False, "live": 1}),
    ],
)  # fmt: skip
def test_command_of_an_event_gets_it_as_json(drop, key, event, told):
    others = {
        each: saving(drop / each)
        for each in ("up_command", "down_command", "quorum_up_command", "quorum_down_command")
    }
    run(event, **others)
    assert [each.name for each in drop.iterdir()] == [key]
    text = (drop / key).read_text()
    assert json.loads(text.splitlines()[0]) == {"service": "web"} | told
    assert os.geteuid() != 0 or user_of(text) != "0"


def test_command_that_does_not_exist_is_logged_and_harms_nothing(caplog):
    with caplog.at_level(logging.ERROR, logger="overlay"):
        run(QuorumChanged(True, 4, 2), quorum_up_command=("/nonexistent",))
    assert (
        "command failed service=web command=/nonexistent: it is missing: install it, or correct its path"
        in caplog.text
    )


def test_command_that_fails_is_logged_with_how_it_ended(caplog):
    with caplog.at_level(logging.ERROR, logger="overlay"):
        for script in ("exit 3", "kill -9 $$", "exit 0"):
            run(QuorumChanged(True, 4, 2), quorum_up_command=("/bin/sh", "-c", script))
    told = "command failed service=web command=/bin/sh: it"
    assert caplog.messages == [f"{told} ended with 3", f"{told} was ended by SIGKILL"]


@pytest.mark.slow
def test_command_that_hangs_is_ended(drop, monkeypatch, caplog):
    for patience in (1, 10, 50):
        monkeypatch.setattr(commands, "PATIENCE", patience)
        run(
            QuorumChanged(True, 4, 2),
            quorum_up_command=("/bin/sh", "-c", f"touch {drop}/begun; sleep 600; touch {drop}/done"),
        )
        assert f"command=/bin/sh: it was ended after {patience} s" in caplog.text
        if (drop / "begun").exists():  # otherwise it had no time to begin
            break
    assert [each.name for each in drop.iterdir()] == ["begun"]


def test_event_without_a_command_runs_nothing(drop):
    run(QuorumChanged(False, 1, 2), quorum_up_command=saving(drop / "wrong"))
    assert list(drop.iterdir()) == []
