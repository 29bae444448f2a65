"""Hooks of a running agent: events of the node and its peer reach the operator's programs, which
run with few rights.
"""

from __future__ import annotations

import json
import os
import signal
import tempfile
from pathlib import Path

import pytest

from tests.netns.network import PATIENCE, Network
from tests.netns.topology import wait_until

# A peer that does not answer is given up soon; on a busy machine this also happens to one that answers late, which then
# returns.
TIMING = {"rekey_timeout": 0.5, "rekey_jitter": 0.01, "rekey_attempt_time": 2.0, "keepalive_timeout": 1.0}
HOOK = """#!/bin/sh
event=$(cat)
printf '%s %s %s\\n' "$(id -u)" "$(grep CapEff /proc/self/status | cut -f2)" "$event" >> {told}
"""


class Hooks:
    """A directory of hooks, and a record of their runs."""

    def __init__(self, directory):
        self.directory, self._told = directory / "hooks", directory / "told"
        (self.directory / "root").mkdir(parents=True)
        self._told.mkdir()
        self._told.chmod(0o777)  # writable for the user that runs them

    def add(self, name):
        path = self.directory / name
        path.write_text(HOOK.format(told=self._told / path.name))
        path.chmod(0o755)

    def told(self, name):
        """Return the user, capabilities and event of each run of the hook *name*."""
        path = self._told / name
        lines = path.read_text().splitlines() if path.exists() else []
        return [
            (int(uid), int(capabilities, 16), json.loads(event))
            for uid, capabilities, event in (line.split(" ", 2) for line in lines)
        ]

    def wait(self, name, count=1):
        wait_until(lambda: len(self.told(name)) >= count, PATIENCE, f"{name} to be told")
        return [event for _, _, event in self.told(name)]


@pytest.fixture
def hooks():
    """Hooks outside pytest's directory, which is closed to the user that runs them."""
    with tempfile.TemporaryDirectory(prefix="overlay-test-") as name:
        Path(name).chmod(0o755)
        yield make_hooks(Path(name))


def make_hooks(directory):
    made = Hooks(directory)
    for name in ("up", "peer-up", "peer-down", "reload", "down", "root/peer-up.root"):
        made.add(name)
    made.add("reload.writable")
    (made.directory / "reload.writable").chmod(0o777)
    return made


def test_hooks_hear_what_happens_to_the_node_and_its_peer(lab, tmp_path, hooks):
    network = Network(lab, tmp_path)
    paris, tokyo = network.host("paris"), network.host("tokyo")
    tokyo.start()
    paris.launch(timing=TIMING, hooks=hooks.directory)
    paris.wait_ready()
    paris.wait_up(tokyo)

    (up,) = hooks.wait("up")
    assert (up["schema"], up["event"], up["node"], up["interface"]) == (1, "up", "paris", paris.interface)
    peer_up, *_ = hooks.wait("peer-up")
    assert (peer_up["peer"], peer_up["event"]) == ("tokyo", "peer-up")
    hooks.wait("peer-up.root")
    assert {(uid != 0, capabilities) for uid, capabilities, _ in hooks.told("peer-up")} == {(True, 0)}
    assert hooks.told("peer-up.root")[0][0] == 0

    network.settings["mtu"] = 1300
    paris.write()
    paris.process.send_signal(signal.SIGHUP)
    wait_until(lambda: paris.status()["mtu"] == 1300, PATIENCE, "the reload")

    os.kill(tokyo.process.pid, signal.SIGKILL)
    tokyo.process.wait(PATIENCE)
    reload, *_ = hooks.wait("reload")  # the agent may also have seen the change by itself
    assert reload["peers"] == 1

    def is_missed():
        paris.namespace.completed("ping", "-n", "-c1", "-W0.1", tokyo.address)
        return hooks.told("peer-down")

    wait_until(is_missed, PATIENCE, "tokyo, whose forwarder may outlive its agent for a moment, to be missed")
    peer_down, *_ = hooks.wait("peer-down")
    assert (peer_down["peer"], bool(peer_down["cause"])) == ("tokyo", True)
    assert not hooks.told("reload.writable")
    assert "hook refused" in paris.log

    paris.stop()
    (down,) = hooks.wait("down")
    assert down["timestamp_seconds"] > up["timestamp_seconds"]
