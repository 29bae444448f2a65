import dataclasses
import os
import signal
import subprocess
import sys

import pytest
from click.testing import CliRunner

from overlay.cli import main
from overlay.host.control import TakenError, control_path
from overlay.host.leftovers import Leftovers
from tests.overlay.cli.fakes import FakeAgent


@pytest.fixture
def process():
    """A process that runs until it is ended."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"]) as process:
        yield process
        process.kill()


def ended_process():
    with subprocess.Popen(["true"]) as process:
        pass
    return process.pid


def test_down_waits_until_the_agent_has_gone(overlay, agent, clock, process):
    agent.answers["down"] = {"ok": True, "pid": process.pid}
    slept = []

    def stop_slowly():
        slept.append(clock.time)
        if len(slept) == 3:
            agent.stop()
        if len(slept) == 5:
            process.kill()
            process.wait()

    clock.on_sleep = stop_slowly
    result = overlay("down")

    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == f"the agent of overlay0 (process {process.pid}) has stopped\n"
    assert len(slept) == 5


def test_an_agent_that_ended_before_its_parent_asked_has_gone(overlay, agent, clock, process):
    agent.answers["down"] = {"ok": True, "pid": process.pid}

    def end():
        agent.stop()
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)

    clock.on_sleep = end
    result = overlay("down")

    assert result.exit_code == 0
    assert clock.time < 1001


def test_an_agent_in_another_pid_namespace_has_gone_with_its_socket(overlay, agent, clock):
    agent.answers["down"] = {"ok": True, "pid": ended_process()}
    clock.on_sleep = agent.stop

    assert overlay("down").exit_code == 0


def test_an_agent_that_does_not_stop_gets_a_sentence(overlay, agent, clock, process):
    process.send_signal(signal.SIGSTOP)
    agent.answers["down"] = {"ok": True, "pid": process.pid}

    result = overlay("down")

    assert (result.exit_code, result.stdout) == (1, "")
    assert 1010 <= clock.time < 1011
    assert result.stderr == (
        f"Error: the agent of overlay0 (process {process.pid}) still runs after 10 s: "
        f"see its log, and end it with `kill -9 {process.pid}` if it hangs\n"
    )


def test_a_wait_for_the_end_can_be_interrupted(overlay, agent, clock, process):
    agent.answers["down"] = {"ok": True, "pid": process.pid}

    def interrupt():
        raise KeyboardInterrupt

    clock.on_sleep = interrupt
    result = overlay("down")

    assert (result.exit_code, result.output) == (130, "")


@pytest.mark.parametrize(
    ("left", "done"),
    [
        (Leftovers(["ipv4/ip_forward"], 0), "put back net.ipv4.ip_forward"),
        (Leftovers([], 1), "removed 1 route or rule that kept packets from leaving unencrypted"),
        (
            Leftovers(["ipv4/ip_forward"], 4),
            "put back net.ipv4.ip_forward and removed 4 routes and rules that kept packets from leaving unencrypted",
        ),
        (Leftovers([], 0), "nothing was left to restore"),
    ],
)
def test_leftovers_of_an_agent_are_removed_and_reported(surroundings, left, done):
    asked = []

    def remove(path, interface):
        asked.append(interface)
        return left

    result = CliRunner().invoke(
        main, ["down", "--interface", "wan1"], obj=dataclasses.replace(surroundings, remove_leftovers=remove)
    )

    assert (result.exit_code, result.stderr) == (0, "")
    assert asked == ["wan1"]
    assert (
        result.stdout
        == f"no agent runs for wan1; cleaned up after one that was killed or ended with an error: {done}\n"
    )


def test_where_no_agent_runs_there_is_nothing_to_stop(overlay):
    result = overlay("down")

    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "Error: no overlay agent runs for overlay0 here: there is nothing to stop\n"


TAKEN = "overlay0 is already run by process 7: stop it with `overlay down --interface overlay0`"


def taken(path, interface):
    """Find the lock of an agent that is not listening yet."""
    raise TakenError(TAKEN)


def test_an_agent_that_starts_just_now_is_stopped_once_it_listens(surroundings, clock):
    """The command said that `overlay down` stops it."""
    agents = []

    def begin():
        if agents:
            agents[0].stop()
            return
        agents.append(FakeAgent(control_path("overlay0", surroundings.control_directory)))
        agents[0].answers["down"] = {"ok": True, "pid": ended_process()}
        agents[0].__enter__()

    clock.on_sleep = begin
    result = CliRunner().invoke(main, ["down"], obj=dataclasses.replace(surroundings, remove_leftovers=taken))

    assert (result.exit_code, result.stderr) == (0, "")
    assert [request["op"] for request in agents[0].requests] == ["down"]


def test_an_agent_that_never_listens_is_named(surroundings, clock):
    result = CliRunner().invoke(main, ["down"], obj=dataclasses.replace(surroundings, remove_leftovers=taken))

    assert (result.exit_code, result.stderr) == (1, f"Error: {TAKEN}\n")
    assert 1010 <= clock.time < 1011
