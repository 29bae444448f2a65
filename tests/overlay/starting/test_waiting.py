"""An agent that waits for its network or for an address answers, and can be stopped."""

from __future__ import annotations

import contextlib
import os

import pytest
import trio

from overlay.config import Options
from overlay.ending import StoppedError
from overlay.host import control
from overlay.starting.waiting import WaitingAgent
from peers.stores import Location
from peers.stores.memory import MemoryStore

REASON = "this host is not enrolled in office: run `overlay network enroll`"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "overlay0.sock"


def converse(path, use, *, ends=True):
    """Have an agent wait, and return what *use* does in a thread meanwhile; unless it *ends*, wait on."""

    async def main():
        options = Options(Location.parse("etcd://10.0.0.5/office"), path, "overlay0")
        with contextlib.closing(control.listen(path)) as listening:
            waiting = WaitingAgent(options, MemoryStore(""), listening.socket)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(waiting.serve)
                found = await trio.to_thread.run_sync(use, waiting)
                if ends:
                    nursery.cancel_scope.cancel()
        return found

    return trio.run(main, strict_exception_groups=True)


@pytest.mark.parametrize("op", ["status", "peer", "doctor", "ping", "nonsense", None])
def test_every_question_is_told_for_what_it_waits_and_why(path, op):
    def use(waiting):
        before = control.request(path, {"op": op})
        waiting.wait_for("the network", REASON)
        return before, control.request(path, {"op": op})

    before, after = converse(path, use)

    assert before["reason"] == "it has just begun to follow etcd://10.0.0.5/office"
    assert after == {
        "ok": False,
        "kind": "waiting",
        "error": f"the agent of overlay0 (process {os.getpid()}) is waiting for the network",
        "reason": REASON,
    }


@pytest.mark.parametrize(
    ("is_logged", "lines"),
    [
        (True, ["waiting for the network"]),
        (False, [f"waiting for the network: {REASON}", "waiting for the network: another"]),
    ],
)
def test_reason_that_the_store_has_logged_is_not_logged_twice(path, caplog, is_logged, lines):
    def use(waiting):
        for reason in (REASON, "another"):
            waiting.wait_for("the network", reason, is_logged=is_logged)
        return control.request(path, {"op": "status"})

    assert converse(path, use)["reason"] == "another"
    assert caplog.messages == lines


def test_it_is_stopped_by_down_after_the_answer(path):
    answers = []

    with pytest.raises(BaseExceptionGroup) as raised:
        converse(path, lambda _: answers.append(control.request(path, {"op": "down"})), ends=False)

    assert raised.group_contains(StoppedError)
    assert answers == [{"ok": True, "pid": os.getpid()}]


def test_it_does_not_leave_a_file(path):
    answer = converse(path, lambda _: control.request(path, {"op": "down", "leave": True}))

    assert answer["ok"] is False
    assert "is a file, which this host does not leave" in answer["error"]


def test_another_agent_is_told_that_this_one_runs(path):
    def use(_):
        with pytest.raises(control.TakenError, match=f"overlay0 is already run by process {os.getpid()}"):
            control.listen(path)

    converse(path, use)
