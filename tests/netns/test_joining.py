"""Hosts that find each other through an etcd, whatever happens to it."""

from __future__ import annotations

import json
import shutil
import signal

import pytest

from peers.stores.etcd import saved
from tests.netns.joined import ETCD, EtcdNetwork
from tests.netns.network import Pinger, is_silent, ping, pinging
from tests.netns.topology import wait_until
from tests.peers.examples import key_text

DOCUMENT = '[network]\nprefix = "10.244.0.0/16"\n'
PATIENCE = 60.0


@pytest.fixture
def network(lab, tmp_path):
    made = EtcdNetwork(lab, tmp_path, DOCUMENT)
    yield made
    made.close()


def start(*hosts):
    for host in hosts:
        host.launch()
    for host in hosts:
        host.wait_ready()


def test_three_hosts_join_by_one_command_each_and_one_leaves(network):
    paris, tokyo, oslo = (network.joining(name) for name in ("paris", "tokyo", "oslo"))
    start(paris, tokyo)
    paris.wait_to_see("tokyo")
    ping(paris.namespace, tokyo.joined_address, 3)
    pinger = Pinger(paris.namespace, tokyo.joined_address, 0.05, network.directory / "pings")

    start(oslo)
    for host, others in ((paris, ("tokyo", "oslo")), (tokyo, ("paris", "oslo")), (oslo, ("paris", "tokyo"))):
        host.wait_to_see(*others)
        for other in others:
            ping(host.namespace, network.peers[other].joined_address)
    address, subnets = oslo.joined_address, oslo.subnets
    assert paris.sees()["oslo"] == subnets
    assert "membership" in paris.ask("status")

    oslo.ask("down", "--leave")
    assert oslo.process.wait(PATIENCE) == 0
    wait_until(lambda: paris.sees().get("oslo", []) == [], PATIENCE, "paris to know that oslo left")
    assert subnets[0] not in paris.namespace.run("ip", "route", "show", "table", "all")
    assert "oslo" not in network.etcdctl("get", "--prefix", "/overlay/office/nodes/")
    assert is_silent(paris.namespace, address)
    pinger.go_on()
    pinger.process.send_signal(signal.SIGINT)
    assert pinger.lost == []


def test_key_is_replaced_under_traffic_by_two_commands_and_nobody_edits_anything(network):
    paris, tokyo = network.joining("paris"), network.joining("tokyo")
    start(paris, tokyo)
    paris.wait_to_see("tokyo")
    tokyo.wait_to_see("paris")
    had, address = paris.subnets, paris.joined_address
    ping(tokyo.namespace, address, 3)
    old = paris.status()["public_key"]

    def rotate(*arguments):
        return json.loads(paris.ask("rotate-key", "--key", str(paris.key_path), "--json", *arguments))

    with pinging(tokyo.namespace, address, network.directory, 0.02) as pinger:
        new = rotate()["next_public_key"]
        assert new != old
        wait_until(lambda: rotate()["peers"]["new"] == ["tokyo"], PATIENCE, "tokyo to use the new key")
        # paris hears from etcd what it wrote there itself, perhaps later than tokyo.
        wait_until(lambda: rotate()["listed_public_key"] == new, PATIENCE, "paris to hear that it is told")
        pinger.go_on()

        assert rotate("--finish")["public_key"] == new
        wait_until(
            lambda: "other_key" not in network.etcdctl("get", "--prefix", "/overlay/office/nodes/"),
            PATIENCE,
            "paris to have one key again",
        )
        pinger.go_on()
        assert pinger.lost == []

    assert not paris.key_path.with_name(paris.key_path.name + ".new").exists()
    assert (paris.status()["public_key"], paris.subnets) == (new, had)
    assert {peer["name"]: peer["public_key"] for peer in tokyo.status()["peers"]} == {"paris": new}


def test_etcd_is_reached_past_a_tunnel_that_takes_everything(lab, tmp_path):
    """Its connections went into the tunnel to a peer with 0.0.0.0/0, and the hosts lost contact with etcd for good."""
    exit_peer = f'[peers.exit]\npublic_key = "{key_text("exit")}"\naddress = "10.244.255.1"\nsubnets = ["0.0.0.0/0"]\n'
    network = EtcdNetwork(lab, tmp_path, DOCUMENT + exit_peer, address="203.0.113.9")
    paris, tokyo = network.joining("paris"), network.joining("tokyo")
    for host in (paris, tokyo):
        host.namespace.ip(f"route add default via {ETCD}")
    start(paris)
    wait_until(
        lambda: "198.51.100.1 dev overlay0" in paris.namespace.run("ip", "route", "get", "198.51.100.1")
    )

    start(tokyo)
    paris.wait_to_see("exit", "tokyo")  # through the existing connection
    network.etcd.stop()
    wait_until(lambda: paris.status()["store"]["silent"] is not None, PATIENCE, "paris to notice")
    network.etcd.start()

    for host in (paris, tokyo):
        wait_until(
            lambda host=host: host.status()["store"]["silent"] is None, PATIENCE, f"{host.name} to hear"
        )
    network.close()


def has_saved(host, *joined):
    """Return whether *host* has on disk what it needs to know of the hosts *joined*."""
    found = [saved.read(path) for path in (host.directory / "state").glob("office-*.json")]
    known = [kv.value for each in found if each is not None for kv in each[0].kvs]
    return all(any(each.subnets[0].encode() in value for value in known) for each in joined)


def test_traffic_goes_on_while_etcd_is_away_and_a_host_starts_without_it(network):
    paris, tokyo = network.joining("paris"), network.joining("tokyo")
    start(paris, tokyo)
    paris.wait_to_see("tokyo")
    had = tokyo.subnets
    address = tokyo.joined_address
    ping(paris.namespace, address)
    for host in (paris, tokyo):
        wait_until(
            lambda host=host: has_saved(host, paris, tokyo), PATIENCE, f"{host.name} to save both hosts"
        )
    pinger = Pinger(paris.namespace, address, 0.05, network.directory / "pings")
    network.etcd.kill()
    wait_until(lambda: paris.status()["store"]["silent"] is not None, PATIENCE, "paris to notice")
    pinger.go_on()
    assert pinger.lost == []
    assert any("stays in force" in note for note in paris.status()["notes"])

    tokyo.kill()
    start(tokyo)
    assert tokyo.status()["store"]["table_from"] == "disk"
    assert tokyo.subnets == had
    pinger.go_on()

    network.etcd.start()
    for host in (paris, tokyo):
        wait_until(
            lambda host=host: (
                host.status()["store"]["silent"] is None and host.status()["store"]["state"] == "held"
            ),
            PATIENCE,
            f"{host.name} to follow etcd again",
        )
    assert tokyo.subnets == had
    assert paris.sees() == {"tokyo": had}
    pinger.go_on()
    pinger.process.send_signal(signal.SIGINT)


def test_killed_agent_joins_again_with_its_subnet(network):
    paris, tokyo = network.joining("paris"), network.joining("tokyo")
    start(paris, tokyo)
    tokyo.wait_to_see("paris")
    had = paris.subnets

    paris.kill()
    start(paris)

    assert paris.subnets == had
    paris.wait_to_see("tokyo")
    ping(tokyo.namespace, paris.joined_address)
    assert tokyo.sees() == {"paris": had}


def test_host_waits_for_an_etcd_that_comes_later(network):
    network.etcd.stop()
    paris = network.joining("paris")
    paris.launch()
    wait_until(lambda: "waiting for the network" in paris.log, PATIENCE, "paris to wait")
    assert "cannot be reached: Connection refused" in paris.log
    network.etcd.start()
    paris.wait_ready()
    assert paris.subnets


def test_host_that_waits_can_be_stopped(network):
    network.etcd.stop()
    paris = network.joining("paris")
    paris.launch()
    wait_until(lambda: "waiting for the network" in paris.log, PATIENCE, "paris to wait")

    paris.stop()


def test_host_that_waits_says_for_what_and_is_stopped_by_down(network):
    """Before, no command found an agent there."""
    network.etcd.stop()
    rome = network.joining("rome")
    rome.launch()
    wait_until(lambda: "cannot be reached" in failing(rome, "status"), PATIENCE)

    assert failing(rome, "status").startswith("the agent of overlay0 (process ")
    assert "is waiting for the network: etcd at" in failing(rome, "status", "--check")
    assert "error    the agent of overlay0" in failing(rome, "doctor")
    assert "is already run by process" in failing(
        rome, "up", "--peers", network.url, "--key", str(rome.key_path)
    )
    assert rome.process.poll() is None
    rome.overlay("down")
    assert rome.process.wait(PATIENCE) == 0
    assert "no overlay agent runs" in failing(rome, "status")


def failing(host, *arguments):
    """Return the output of a command that exits with 1."""
    done = host.overlay(*arguments)
    assert done.returncode == 1, done
    return done.stdout + done.stderr


def test_network_that_is_not_there_is_one_sentence(network):
    network.url = network.url.replace("office", "nowhere")
    paris = network.joining("paris")
    paris.launch()
    assert paris.process.wait(PATIENCE) == 1
    assert "Error: there is no network nowhere at" in paris.log
    assert "Traceback" not in paris.log


def test_etcd_that_was_restored_from_a_backup_is_followed_when_an_administrator_says_so(network):
    paris, tokyo = network.joining("paris"), network.joining("tokyo")
    start(paris)
    data, backup = network.etcd.directory / "data", network.etcd.directory / "backup"
    network.etcd.stop()
    shutil.copytree(data, backup)
    network.etcd.start()
    start(tokyo)
    wait_until(lambda: paris.sees() == {"tokyo": tokyo.subnets}, PATIENCE, "paris to see tokyo")
    had = {host: host.subnets for host in (paris, tokyo)}
    ping(paris.namespace, tokyo.joined_address)
    for number in range(20):
        network.put(f"tokens/{number}", "x")  # so that its history is longer than the backup's

    network.etcd.stop()
    shutil.rmtree(data)
    shutil.move(backup, data)
    network.etcd.start()
    for host in (paris, tokyo):
        wait_until(
            lambda host=host: any("overlay network accept" in note for note in host.status()["notes"]),
            PATIENCE,
            f"{host.name} to notice",
        )
    assert paris.sees() == {"tokyo": had[tokyo]}
    ping(paris.namespace, tokyo.joined_address)

    for host in (paris, tokyo):
        assert "its revision went back" in host.ask("network", "accept")
    for host in (paris, tokyo):
        wait_until(
            lambda host=host: host.status()["store"]["state"] == "held", PATIENCE, f"{host.name} to hold"
        )
        assert host.subnets == had[host]
    wait_until(lambda: paris.sees() == {"tokyo": had[tokyo]}, PATIENCE, "paris to see tokyo")
    assert "already follows etcd" in paris.ask("network", "accept")
