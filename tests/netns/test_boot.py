"""What is missing when the agent starts, as at boot."""

from __future__ import annotations

import signal

import pytest

from tests.netns.network import PATIENCE, Network
from tests.netns.topology import wait_until


@pytest.fixture
def network(lab, tmp_path):
    made = Network(lab, tmp_path)
    yield made
    made.close()


def test_an_address_to_listen_on_that_comes_later_is_waited_for(network):
    paris, tokyo = network.host("paris"), network.host("tokyo")
    paris.settings["listen"] = [paris.outside]
    paris.namespace.run("ip", "address", "flush", "dev", "eth0")
    network.start()
    note = f"{paris.outside}, on which this node listens, is not an address of this host"
    assert any(each.startswith(note) for each in paris.status()["notes"])

    paris.namespace.run("ip", "address", "add", f"{paris.outside}/24", "dev", "eth0")

    paris.ping(tokyo.address)
    wait_until(
        lambda: not any(each.startswith(note) for each in paris.status()["notes"]), PATIENCE, "the note to go"
    )


def clear(network):
    hosts = [network.host(name, public_key=None) for name in ("paris", "tokyo")]
    network.settings["encapsulation"] = "udp"
    for host in hosts:
        host.key_path.unlink()
    hosts[0].namespace.run("ip", "address", "flush", "dev", "eth0")
    return hosts


def test_the_address_by_which_a_node_knows_itself_is_waited_for(network):
    paris, tokyo = clear(network)
    tokyo.start()
    paris.launch()
    wait_until(lambda: "WARNING waiting for an address" in paris.log, PATIENCE, "paris to wait")

    paris.namespace.run("ip", "address", "add", f"{paris.outside}/24", "dev", "eth0")

    paris.wait_ready()
    paris.ping(tokyo.address)


def test_a_node_that_waits_for_its_address_can_be_stopped(network):
    paris, _ = clear(network)
    paris.launch()
    wait_until(lambda: "WARNING waiting for an address" in paris.log, PATIENCE, "paris to wait")

    paris.stop(signal.SIGINT)
