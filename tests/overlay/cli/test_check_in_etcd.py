"""``overlay check`` of networks in the real etcd, in the overlay's layout and in flannel's."""

from __future__ import annotations

import pytest
import trio

from peers.stores.etcd.gateway import Gateway
from peers.stores.etcd.location import EtcdLocation
from tests.overlay.cli.network.test_network import put_node
from tests.peers.stores.etcd.conftest import real_etcd
from tests.peers.stores.flannel.forms import LITERAL, config

__all__ = ["real_etcd"]


class Named:
    """A network in the overlay's layout, by its name."""

    def __init__(self, url, name):
        self.url, self.name = f"etcd://{url}/{name}", name


@pytest.fixture
def put(real_etcd):
    """A function that writes a key into an empty etcd."""

    def call(method, *arguments):
        async def make():
            gateway = Gateway(EtcdLocation.parse("etcd", f"//{real_etcd.url}/x"))
            await getattr(gateway, method)(*arguments)
            await gateway.aclose()

        trio.run(make)

    call("delete", b"/", b"0")
    return lambda key, value: call("put", key.encode(), value)


def test_check_tells_of_nodes_that_are_left_out(overlay, real_etcd, put):
    office = Named(real_etcd.url, "checked")
    put("/overlay/checked/config", b'[network]\nprefix = "10.244.0.0/16"\n')
    put_node(office, "paris", "10.244.1.0/24")
    put_node(office, "rome", "10.245.1.0/24")

    result = overlay("check", "--peers", office.url)

    assert result.exit_code == 0, result.output
    assert "paris" in result.stdout
    assert (
        "the node rome (10.245.1.0/24) is left out: 10.245.1.0/24 is not in the network's prefix"
        in result.stderr
    )


def test_check_shows_flannels_network_and_tells_of_leases_that_are_left_out(overlay, real_etcd, put):
    put("/coreos.com/network/config", config("vxlan"))
    put("/coreos.com/network/subnets/10.244.7.0-24", (LITERAL["vxlan"] % "192.0.2.7").encode())
    put("/coreos.com/network/subnets/10.244.8.0-24", (LITERAL["udp"] % "192.0.2.8").encode())

    result = overlay("check", "--peers", f"flannel+etcd://{real_etcd.url}")

    assert result.exit_code == 0, result.output
    assert "flannel-192.0.2.7  10.244.7.0  192.0.2.7:8472  10.244.7.0/24  vxlan" in result.stdout
    assert "the lease of 10.244.8.0/24 (192.0.2.8) is left out: its backend is udp" in result.stderr


def test_check_refuses_a_config_of_flannels_that_agents_cannot_follow(overlay, real_etcd, put):
    put("/coreos.com/network/config", config("host-gw"))

    result = overlay("check", "--peers", f"flannel+etcd://{real_etcd.url}")

    assert result.exit_code == 2
    assert "/coreos.com/network/config: Backend.Type is 'host-gw', and agents take part in" in result.stderr


def test_commands_for_our_networks_leave_flannels_alone(overlay, real_etcd):
    result = overlay("network", "show", "--peers", f"flannel+etcd://{real_etcd.url}")

    assert result.exit_code == 2
    assert (
        "this is flannel's network; write its config and leases with `etcdctl put` and `del`" in result.stderr
    )
