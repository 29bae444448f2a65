"""The samples of a running agent."""

from __future__ import annotations

import signal
import time

import pytest

from overlay.balancing import counting
from overlay.diagnosis.finding import Finding
from overlay.host import clock
from overlay.link.messages import PeerCounters
from overlay.metrics import peers
from overlay.metrics.collecting import collect
from overlay.metrics.exposition import Samples
from overlay.reasons import REASONS
from tests.overlay.agent.machine import ELSEWHERE, PARIS, ROME, TOKYO, until
from tests.overlay.metrics.test_exposition import read
from tests.peers.examples import peer, render, table


async def scrape(machine):
    """Return the values by name and labels."""
    found = read(await collect(machine.agent._running))
    return {(name, *(value for _, value in sorted(labels))): value for (name, labels), value in found.items()}


def counters(number=1, drops=None, **fields):
    return PeerCounters(number, ELSEWHERE, 11, 22, 3, 4, clock.now(), drops or {}, **fields)


def test_counters_of_each_peer_are_told_and_what_is_not_known_is_absent(node):
    async def story(machine):
        await machine.greeted()
        machine.counters = [counters(drops={"replay": 3}, tx_units=7, path_mtu=1400)]

        found = await scrape(machine)

        assert found["overlay_peer_transmit_bytes_total", "tokyo"] == 11
        assert found["overlay_peer_receive_bytes_total", "tokyo"] == 22
        assert found["overlay_peer_transmit_units_total", "tokyo"] == 7
        assert found["overlay_peer_path_mtu_bytes", "tokyo"] == 1400
        assert found["overlay_peer_dropped_packets_total", "tokyo", "replay"] == 3
        assert abs(found["overlay_peer_last_receive_timestamp_seconds", "tokyo"] - time.time()) < 60
        assert found["overlay_peer_state", "tokyo", "connecting"] == 1
        assert not any("rome" in key for key in found if "bytes" in key[0])
        assert ("overlay_peer_last_handshake_timestamp_seconds", "tokyo") not in found

    node(story)


def test_node_tells_what_runs_and_every_drop_reason_from_the_start(node):
    async def story(machine):
        await machine.ready()
        machine.host.found = [Finding("rp_filter", "rp_filter drops", "set it")]
        machine.agent._upkeep.notes.look()

        found = await scrape(machine)

        assert found["overlay_node_info", "tun", "overlay0", "paris"] == 1
        assert found["overlay_packet_path_info", "", "interpreted"] == 1
        assert found["overlay_mtu_bytes",] == 1420
        assert found["overlay_forwarder_up",] == 1
        assert found["overlay_forwarder_restarts_total",] == 0
        assert found["overlay_config_last_reload_successful",] == 1
        assert found["overlay_finding", "rp_filter"] == 1
        assert {key[1] for key in found if key[0] == "overlay_dropped_packets_total"} == set(REASONS)
        assert sum(key[0] == "overlay_drop_reason_info" for key in found) == len(REASONS)
        assert found["overlay_process_resident_memory_bytes", "agent"] > 1_000_000
        assert found["overlay_process_cpu_seconds_total", "agent"] > 0
        assert ("overlay_store_up",) not in found

    node(story)


def test_forwarder_that_tells_nothing_leaves_its_counters_out(node):
    async def story(machine):
        await machine.ready()
        machine.forwarder.answers_counters = False
        machine.supervisor._counters._is_silent = True  # as after a question before, so that this waits less

        found = await scrape(machine)

        assert found["overlay_forwarder_up",] == 0
        assert not any(
            key[0] in {"overlay_peers", "overlay_dropped_packets_total", "overlay_peer_state"}
            for key in found
        )

    node(story)


def test_restart_of_the_forwarder_is_counted(node):
    async def story(machine):
        await machine.ready()
        machine.forwarder.die()
        await until(lambda: len(machine.forwarders) == 2 and machine.supervisor.restarts == 1)

        assert (await scrape(machine))["overlay_forwarder_restarts_total",] == 1

    node(story)


def test_refused_reload_is_told(node):
    async def story(machine):
        await machine.ready()
        machine.store.write("not TOML")
        await until(lambda: machine.agent._reloads.error is not None)

        assert (await scrape(machine))["overlay_config_last_reload_successful",] == 0

    node(story)


def test_peers_are_counted_by_state(node):
    async def story(machine):
        await machine.greeted()

        found = await scrape(machine)

        assert found["overlay_peers", "connecting"] == 2
        assert found["overlay_peers", "up"] == 0

    node(story)


def test_series_of_drops_are_bounded_and_those_left_out_are_counted(node, monkeypatch):
    monkeypatch.setattr(peers, "MOST_DROPS", 2)

    async def story(machine):
        await machine.ready()
        machine.counters = [counters(1, {"replay": 1, "source": 1}), counters(2, {"replay": 1})]

        found = await scrape(machine)

        assert sum(key[0] == "overlay_peer_dropped_packets_total" for key in found) == 2
        assert found["overlay_left_out_series",] == 1

    node(story)


def test_measured_round_trip_and_loss_are_those_of_the_history(node):
    async def story(machine):
        await machine.ready()
        history = machine.agent._running.history
        history.begin(clock.now(), machine.agent._engine.roster.by_number)
        history.count(1, counters(), machine.forwarder, clock.now())
        history.measured(1, 0.0125, 0.5, "ping")

        found = await scrape(machine)

        assert found["overlay_peer_round_trip_seconds", "tokyo"] == pytest.approx(0.0125)
        assert found["overlay_peer_loss_ratio", "tokyo"] == 0.5
        assert ("overlay_peer_round_trip_seconds", "rome") not in found

    node(story)


SERVICE = '\n[services.{name}]\naddress = "10.244.200.{number}"\nports = [80]\nservers = [{servers}]\n'


def test_questions_while_services_change_are_answered(node, monkeypatch):
    """A reload informs the forwarder of peers first; until services follow, the earlier ones are balanced."""
    monkeypatch.setattr(counting, "PATIENCE", 0.05)  # the forwarder of these tests has no services
    newcomers = [peer(f"host{number}", f"10.244.{number}.0/24") for number in range(10, 50)]
    between = []

    async def story(machine):
        await machine.ready()
        agent = machine.agent
        machine.seconds_per_command = 0.3
        machine.store.write(
            render(table(PARIS, TOKYO, ROME, *newcomers))
            + SERVICE.format(name="web", number=1, servers='"tokyo", "rome", "host10"')
            + SERVICE.format(name="db", number=2, servers='"rome"')
        )
        await machine.send_signal.send(signal.SIGHUP)
        await until(lambda: agent._node is not agent._balancing.node)
        between.append(await scrape(machine))
        for question in ("services", "status"):
            assert (await machine.ask(op=question))["ok"]
        assert (await machine.ask(op="peer", name="rome"))["ok"]
        assert agent._node is not agent._balancing.node
        machine.seconds_per_command = 0
        await until(lambda: agent._node is agent._balancing.node)
        after = await scrape(machine)
        assert after["overlay_service_state", "db", "up"] == 1

    def before(machine):
        service = SERVICE.format(name="web", number=1, servers='"tokyo"')
        machine.store.write(render(table(PARIS, TOKYO, ROME)) + service)

    node(story, before=before)
    assert between[0]["overlay_server_weight", "tokyo", "web"] == 1
    assert ("overlay_server_weight", "rome", "web") not in between[0]
    assert ("overlay_service_state", "db", "up") not in between[0]


def test_peers_that_are_removed_while_they_are_told_are_left_out(node):
    async def story(machine):
        await machine.ready()
        running, samples = machine.agent._running, Samples()
        telling = peers.PeerScrape(samples, running, await running.count())
        (remotes,) = telling.pieces()
        machine.write(PARIS, TOKYO)
        await machine.send_signal.send(signal.SIGHUP)
        await until(lambda: len(running.roster.by_number) == 1)

        telling.tell(remotes)

        assert "rome" not in "".join(samples.lines["overlay_peer_state"])

    node(story)
