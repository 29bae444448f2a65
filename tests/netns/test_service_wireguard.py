"""A client with WireGuard and no agent, which knows the director alone: answers go back through it."""

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
