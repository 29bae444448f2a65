"""Starts that are refused, and how an agent ends."""

from __future__ import annotations

import os
import signal

import pytest
import trio

from overlay import agent  # noqa: F401  what the command loads, loaded once
from overlay.cli import main
from overlay.ending import StoppedError, until_stopped
from overlay.host.process import privileges
from tests import forked
from tests.overlay.agent.machine import PARIS, PATIENCE, TOKYO, until
from tests.peers.examples import render, table


@pytest.mark.parametrize(
    ("interface", "error", "code"),
    [("all", "'all' cannot name an interface", 2), ("overlay0", "does not exist: make one", 2)],
)
@pytest.mark.skipif(os.geteuid() != 0, reason="without root, another refusal comes first")
def test_start_that_cannot_be_is_refused_before_anything_is_touched(tmp_path, interface, error, code):
    (tmp_path / "peers.toml").write_text(render(table(PARIS, TOKYO)))

    done = up(tmp_path, interface=interface)

    assert done.returncode == code
    assert error in done.stderr
    assert "Traceback" not in done.stderr


def test_start_without_the_capability_names_it(tmp_path):
    done = up(tmp_path, interface="absent0", prelude=lambda: privileges.keep_only([]))

    assert done.returncode == 1
    assert "overlay up has no CAP_NET_ADMIN" in done.stderr


def up(directory, interface="overlay0", prelude=lambda: None):
    def program():
        prelude()
        main()

    files = ("--peers", f"{directory}/peers.toml", "--key", f"{directory}/key")
    return forked.run(program, "up", *files, "--interface", interface)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_stops_the_agent(node, number):
    async def story(machine):
        await machine.ready()
        await machine.send_signal.send(number)
        await trio.sleep(PATIENCE)

    with pytest.raises(BaseExceptionGroup) as raised:
        node(story)
    with until_stopped():
        raise raised.value


def test_signal_during_the_start_stops_the_agent(node):
    async def story(machine):
        await until(lambda: machine.send_signal is not None)
        await machine.send_signal.send(signal.SIGTERM)
        await trio.sleep(PATIENCE)

    with pytest.raises(BaseExceptionGroup) as raised:
        node(story, before=lambda machine: setattr(machine, "holds_forwarders", True))
    with until_stopped():
        raise raised.value


def test_down_is_answered_before_the_agent_stops(node):
    replies = []

    async def story(machine):
        await machine.ready()
        replies.append(await machine.ask(op="down"))
        await trio.sleep(PATIENCE)

    with pytest.raises(BaseExceptionGroup) as caught:
        node(story)
    assert caught.group_contains(StoppedError)
    assert replies == [{"ok": True, "pid": os.getpid()}]
