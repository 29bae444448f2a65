"""Changes of the host's network and its clock."""

from __future__ import annotations

import pytest
import trio

from overlay.diagnosis.finding import Finding
from overlay.ending import until_stopped
from overlay.errors import HostError
from overlay.link.messages import (
    RenewSources,
)
from overlay.provisioning.upkeep import UNSET_CLOCK
from tests.overlay.agent.machine import PATIENCE, until
from tests.peers.examples import peer

# The host's network


@pytest.mark.parametrize("left", [None, {}])
def test_changes_of_the_network_are_mended_and_sources_chosen_anew(node, left):
    async def story(machine):
        await machine.ready()
        machine.host.left = left
        machine.host.others.send(b"route")

        await until(lambda: machine.forwarder.told(RenewSources))

        assert machine.host.mends == 1

    node(story)


def test_mend_that_the_host_refuses_is_not_the_end(node, caplog):
    async def story(machine):
        await machine.ready()
        machine.host.refusal = "the routing tables are out of reach"
        machine.host.others.send(b"route")
        await until(lambda: machine.forwarder.told(RenewSources))
        machine.host.refusal = None

        assert (await machine.status())["node"] == "paris"

    node(story)
    assert "that another program changed: the routing tables are out of reach" in caplog.text


def test_notes_are_those_of_the_moment_at_which_they_are_asked_for(node, caplog):
    """Nothing reports that somebody changed a setting: notes remained forever, or never appeared."""
    caplog.set_level("INFO", logger="overlay")
    found = Finding("forwarding", "this host does not forward", "run `sysctl`")

    async def story(machine):
        await machine.ready()
        machine.host.found = [found]
        assert (await machine.status())["notes"][-1:] == [str(found)]
        await machine.status()

        machine.host.found = []

        assert str(found) not in (await machine.status())["notes"]

    node(story)
    told = [
        (each.levelname, each.getMessage()) for each in caplog.records if "not forward" in each.getMessage()
    ]
    assert told == [("WARNING", str(found)), ("INFO", "no longer true: this host does not forward")]


def test_key_that_others_can_read_is_noted_until_they_cannot(node):
    async def story(machine):
        key = machine.options.key
        key.chmod(0o644)
        await machine.ready()
        noted = f"{key} can be read by others: run `chmod 600 {key}`"
        assert noted in (await machine.status())["notes"]

        key.chmod(0o600)

        while noted in (await machine.status())["notes"]:
            await trio.sleep(0.05)

    node(story)


def test_unset_clock_is_noted_until_it_is_set(node, monkeypatch):
    seconds = [0.0]
    monkeypatch.setattr("overlay.host.clock.wall_ns", lambda: int(seconds[0] * 1e9))

    async def story(machine):
        await machine.ready()
        assert str(UNSET_CLOCK) in (await machine.status())["notes"]

        seconds[0] = 1.8e9

        assert str(UNSET_CLOCK) not in (await machine.status())["notes"]

    node(story)


def test_interface_that_was_removed_ends_the_agent_with_a_sentence(node):
    async def story(machine):
        await machine.ready()
        machine.host.is_present = False
        machine.host.others.send(b"link")
        await trio.sleep(PATIENCE)

    with pytest.raises(BaseExceptionGroup) as raised:
        node(story)
    with pytest.raises(HostError, match="was removed by another program"), until_stopped():
        raise raised.value


# Time


@pytest.mark.slow
def test_agent_with_nothing_to_do_wakes_about_twice_a_second(node):
    class Wakes(trio.abc.Instrument):
        def __init__(self):
            self.waits = []

        def before_io_wait(self, timeout):
            self.waits.append(timeout)

    async def story(machine):
        await machine.ready()
        await trio.sleep(0.2)
        wakes = Wakes()
        trio.lowlevel.add_instrument(wakes)
        began = trio.current_time()
        await trio.sleep(2.2)
        trio.lowlevel.remove_instrument(wakes)
        periods = (trio.current_time() - began) / 2.2  # a busy machine lets more time pass

        assert (
            len(wakes.waits) <= 30 * periods
        )  # two ticks, two looks, the end of this sleep, and what each leads to

    node(story, peer("silent", "10.244.4.0/24"))
