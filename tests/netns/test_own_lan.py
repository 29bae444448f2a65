"""A peer has a network behind it that this host itself is on: the host's own link is preferred there."""

from __future__ import annotations

import pytest

from tests.netns.network import Network, trace
from tests.netns.topology import wait_until


@pytest.fixture
def network(lab, tmp_path):
    made = Network(lab, tmp_path)
    yield made
    made.close()


def about_routes(host):
    return [note for note in host.status()["notes"] if "do not go into the tunnel" in note]


@pytest.mark.parametrize(
    ("lan", "printer"), [("192.0.2.0/24", "192.0.2.99"), ("2001:db8::/64", "2001:db8::99")]
)
def test_own_lan_is_reached_though_it_is_a_peer_s_subnet_and_holds_its_endpoint(network, lab, lan, printer):
    """Before, the tunnel took it, and disconnected everyone who was logged in from there."""
    paris, tokyo = network.host("paris"), network.host("tokyo")
    tokyo.settings["subnets"].append(lan)
    if ":" in lan:
        for host in (paris, tokyo):
            host.settings["endpoint"] = f"[{host.outside6}]"
    other = lab.namespace("printer")
    lab.plug(network.underlay, other.end("eth0", "192.0.2.99/24", "2001:db8::99/64"))
    before = trace(paris.namespace)
    network.start()

    paris.ping(tokyo.address)
    paris.namespace.run("ping", "-c2", "-W30", printer)
    other.run("ping", "-c2", "-W30", paris.outside6 if ":" in lan else paris.outside)

    (note,) = about_routes(paris)
    assert f"eth0 of this host has {lan}, so packets to {lan} of tokyo do not go into the tunnel" in note
    paris.stop()
    assert trace(paris.namespace) == before


def test_lan_that_is_joined_while_the_agent_runs_is_left_to_the_host(network, lab):
    paris, tokyo = network.host("paris"), network.host("tokyo")
    tokyo.settings["subnets"] += ["0.0.0.0/0", "198.51.100.0/24"]
    network.start()
    paris.ping(tokyo.address)
    assert "dev overlay0" in paris.namespace.run("ip", "route", "get", "198.51.100.9")

    other = lab.namespace("printer")
    lab.veth(paris.namespace.end("eth1", "198.51.100.1/24"), other.end("eth0", "198.51.100.9/24"))

    paris.namespace.run("ping", "-c2", "-W30", "198.51.100.9")
    wait_until(lambda: about_routes(paris))
    paris.namespace.run("ip", "link", "delete", "eth1")
    wait_until(lambda: not about_routes(paris))
    assert "dev overlay0" in paris.namespace.run("ip", "route", "get", "198.51.100.9")
