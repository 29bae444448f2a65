"""Agents and hosts of flanneld in one network, on an etcd in memory and on the real one.

A second implementation of flanneld's rules stands in for it.
"""

from __future__ import annotations

import json
from ipaddress import IPv4Network

import pytest

from tests.peers.stores.flannel.flanneld import OutOfSubnetsError
from tests.peers.stores.flannel.network import config, lease_key, until

BACKENDS = ("udp", "vxlan", "ipip", "wireguard")


def routes(host):
    """Return where the packets for each other subnet go, in the table of an agent."""
    return {
        str(subnet): peer.endpoint.host
        for name, peer in host.table().peers.items()
        if name != host.name
        for subnet in peer.subnets
    }


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_agents_and_flanneld_send_packets_to_the_same_hosts(world, backend):
    async def main(world):
        agents = [world.agent(name, f"192.0.2.{number}") for number, name in enumerate(("paris", "rome"), 10)]
        hosts = [world.flanneld(f"192.0.2.{number}") for number in range(20, 24)]
        await hosts[0].start()
        await agents[0].start()
        await hosts[1].start()
        await hosts[2].start()
        await agents[1].start()
        await hosts[3].start()

        for agent in agents:
            others = {str(host.subnet): host.address for host in hosts}
            others |= {each.subnets[0]: each.address for each in agents if each is not agent}
            await until(lambda agent=agent, others=others: routes(agent) == others)
        for host in hosts:
            others = {str(each.subnet): each.address for each in hosts if each is not host}
            others |= {each.subnets[0]: each.address for each in agents}
            assert await host.routes() == others
        taken = [IPv4Network(subnet) for subnet in [*(await hosts[0].routes()), str(hosts[0].subnet)]]
        assert not any(one.overlaps(other) for one in taken for other in taken if one is not other)

    world.run(main, config(backend))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_host_moves_to_an_agent_and_back_with_its_subnet(world, backend):
    async def main(world):
        there = world.flanneld("192.0.2.10")
        await there.start()
        had = str(there.subnet)
        paris = world.agent("paris", "192.0.2.10")
        await paris.start()
        assert paris.subnets == [had]
        await paris.kill()
        back = world.flanneld("192.0.2.10", previous=had)
        await back.start()

        assert str(back.subnet) == had
        [kv] = (await world.gateway.range(lease_key(had))).kvs
        assert json.loads(kv.value) == back.attributes()
        await paris.start()
        assert paris.subnets == [had]

    world.run(main, config(backend))


def test_agents_renew_beside_a_flanneld_that_does(world):
    async def main(world):
        tokyo = world.flanneld("192.0.2.20")
        await tokyo.start()
        paris = world.agent("paris", "192.0.2.10")
        await paris.start()
        before = routes(paris)
        await tokyo.renew()
        late = world.flanneld("192.0.2.21")
        await late.start()

        await until(lambda: str(late.subnet) in routes(paris))
        assert routes(paris) == before | {str(late.subnet): "192.0.2.21"}

    world.run(main, config())


def test_together_they_use_every_subnet_once(world):
    async def main(world):
        hosts = [world.flanneld(f"192.0.2.{number}") for number in range(20, 23)]
        paris = world.agent("paris", "192.0.2.10")
        for host in hosts[:2]:
            await host.start()
        await paris.start()
        with pytest.raises(OutOfSubnetsError):
            await hosts[2].start()

        taken = {str(host.subnet) for host in hosts[:2]} | set(paris.subnets)
        assert taken == {"10.244.64.0/18", "10.244.128.0/18", "10.244.192.0/18"}

    world.run(main, config(SubnetLen=18))
