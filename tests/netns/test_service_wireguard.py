"""WireGuard without an agent: a client that only knows the director, and a server behind one director."""

from __future__ import annotations

import shutil

import pytest

from tests.netns.farm import ask, names, serve
from tests.netns.network import Network
from tests.netns.topology import wait_until

VIPS = {4: "203.0.113.80", 6: "2001:db8:80::80"}
SERVICE = """
[services.web]
address = ["203.0.113.80", "2001:db8:80::80"]
ports = [80]
protocol = ["tcp", "udp"]
directors = ["lb1"]
servers = ["web1", "web2"]
reply = "director"
"""

pytestmark = pytest.mark.skipif(
    shutil.which("wireguard-go") is None or shutil.which("wg") is None, reason="wireguard-go is not installed"
)


@pytest.fixture
def phone(lab, tmp_path):
    network = Network(lab, tmp_path)
    lb1, web1, web2 = (network.host(name) for name in ("lb1", "web1", "web2"))
    phone = network.wireguard("phone", agent=False)
    network.more = SERVICE
    lb1.namespace.run("sysctl", "-qw", "net.ipv6.conf.all.forwarding=1")
    for each in (web1, web2):
        serve(each.namespace, 80, each.name)
    network.start()
    phone.start()
    phone.meet(lb1, endpoint=f"{lb1.outside}:51820")
    allowed = [*lb1.settings["subnets"], f"{VIPS[4]}/32", f"{VIPS[6]}/128"]
    phone.set("peer", lb1.public_key, "allowed-ips", ",".join(allowed))
    for address in VIPS.values():
        source = phone.address if ":" not in address else phone.address6
        phone.namespace.run("ip", "route", "add", address, "dev", phone.interface, "src", source)
    yield phone
    network.close()


@pytest.mark.parametrize("version", [4, 6])
def test_client_with_wireguard_that_knows_the_director_alone_is_served(phone, version):
    wait_until(lambda: set(names(ask(phone.namespace, VIPS[version], 20))) == {"web1", "web2"}, 60)
    for protocol in ("tcp", "udp"):
        answers = ask(phone.namespace, VIPS[version], 20, protocol)
        assert set(names(answers)) == {"web1", "web2"}
        assert {each.client for each in answers} == {phone.address if version == 4 else phone.address6}


@pytest.fixture
def appliance(lab, tmp_path):
    """A director, a client behind its own host and one behind the director, and a server with WireGuard
    and no agent.
    """
    network = Network(lab, tmp_path)
    lb1, web1, client = (network.host(name) for name in ("lb1", "web1", "client"))
    appliance = network.wireguard("appliance", agent=False)
    network.more = SERVICE.replace('"web2"]', '"appliance"]').replace('reply = "director"\n', "")
    inside, beside = client.container("inside"), lb1.container("beside")
    lb1.namespace.run("sysctl", "-qw", "net.ipv6.conf.all.forwarding=1")
    for each in (web1, appliance):
        serve(each.namespace, 80, each.name)
    network.start()
    appliance.start()
    # What a director sends has the sources of all clients, and all answers pass through it: it may use every address.
    appliance.meet(lb1, endpoint=f"{lb1.outside}:51820")
    appliance.set("peer", lb1.public_key, "allowed-ips", "0.0.0.0/0,::/0")
    for address, length in ((VIPS[4], 32), (VIPS[6], 128)):
        appliance.namespace.run("ip", "address", "add", f"{address}/{length}", "dev", appliance.interface)
    yield {"a container behind another host": inside, "a container at the director": beside}
    network.close()


@pytest.mark.parametrize("version", [4, 6])
def test_server_with_wireguard_and_no_agent_serves_clients_of_the_overlay(appliance, version):
    for place, client in appliance.items():
        wait_until(
            lambda client=client: (
                set(names(ask(client.namespace, VIPS[version], 20))) == {"web1", "appliance"}
            ),
            60,
            place,
        )
        for protocol in ("tcp", "udp"):
            answers = ask(client.namespace, VIPS[version], 20, protocol)
            assert set(names(answers)) == {"web1", "appliance"}
            assert {each.client for each in answers} == {client.address if version == 4 else client.address6}
