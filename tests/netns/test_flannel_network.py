"""Agents in a flannel network in a real etcd, next to a host with flanneld, which is then migrated to an agent."""

from __future__ import annotations

import shutil

import pytest

from tests.netns.flanneld import Flanneld, FlannelNetwork
from tests.netns.joined import ETCD, PATIENCE
from tests.netns.network import ping
from tests.netns.topology import wait_until

BACKENDS = ("udp", "vxlan", "ipip", "wireguard")
SUBNET = "10.244.77.0/24"


@pytest.fixture(params=BACKENDS)
def network(request, lab, tmp_path):
    if request.param == "wireguard" and not (shutil.which("wireguard-go") and shutil.which("wg")):
        pytest.skip("this test needs the programs wireguard-go and wg")
    made = FlannelNetwork(lab, tmp_path, request.param)
    yield made
    made.close()


def start(host):
    host.launch()
    host.wait_ready()


def see(host, name, subnets):
    wait_until(
        lambda: host.sees().get(name) == subnets, PATIENCE, f"{host.name} to see {name} with {subnets}"
    )


def row(host, name):
    return next(peer for peer in host.status()["peers"] if peer["name"] == name)


def test_a_host_of_flanneld_and_an_agent_reach_each_other_and_the_host_moves_with_its_subnet(network):
    paris, tokyo = network.joining("paris"), network.joining("tokyo")
    flanneld = Flanneld(tokyo, SUBNET)
    flanneld.join()
    start(paris)
    see(paris, f"flannel-{tokyo.outside}", [SUBNET])
    flanneld.follow()

    ping(paris.namespace, "10.244.77.0", 3)
    ping(tokyo.namespace, paris.joined_address, 3)
    shown = row(paris, f"flannel-{tokyo.outside}")
    assert shown["encapsulation"] == network.backend
    assert "held (" in paris.ask("status")
    checked = paris.ask("check", "--peers", network.url)
    assert "paris" in checked
    assert f"flannel-{tokyo.outside}" in checked

    flanneld.leave()
    start(tokyo)
    assert tokyo.subnets == [SUBNET]
    see(paris, "tokyo", [SUBNET])
    ping(paris.namespace, "10.244.77.0", 3)
    ping(tokyo.namespace, paris.joined_address, 3)
    assert row(paris, "tokyo")["is_encrypted"]
    assert set(network.leases()) == {SUBNET, *paris.subnets}

    tokyo.ask("down", "--leave")
    assert tokyo.process.wait(PATIENCE) == 0
    see(paris, "tokyo", [])
    assert set(network.leases()) == set(paris.subnets)


@pytest.mark.parametrize("network", ["vxlan"], indirect=True)
def test_wrong_input_is_one_sentence_each(network):
    paris = network.joining("paris")

    def said(*options, url=network.url, code=1):
        done = paris.overlay("up", "--peers", url, "--key", str(paris.key_path), *options)
        assert done.returncode == code, done
        assert "Traceback" not in done.stderr
        return done.stderr.strip().splitlines()[-1]

    nothing = f"flannel+etcd://{ETCD}:2379/nothing"
    assert f"there is no network of flannel's at {nothing}, because etcd has no key /nothing/config" in said(
        url=nothing
    )
    assert "--encapsulation udp has no effect in flannel's network" in said("--encapsulation", "udp", code=2)
    assert "--endpoint host.example is not an IPv4 address" in said("--endpoint", "host.example", code=2)
    network.put("config", '{"Network":"10.244.0.0/16","Backend":{"Type":"host-gw"}}')
    assert "Backend.Type is 'host-gw', and agents take part in udp, vxlan, ipip and wireguard" in said()
