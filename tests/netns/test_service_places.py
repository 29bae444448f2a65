"""Every location of clients of a service, and every kind of server, on whole hosts.

One farm serves all tests with the same path of answers: directly from the servers, or through the director.
"""

from __future__ import annotations

import pytest

from tests.netns.farm import ask, names, serve
from tests.netns.network import Network, nft
from tests.netns.topology import Lab, missing_requirement, wait_until

VIPS = {4: "192.0.2.100", 6: "2001:db8::100"}  # on the link that all hosts share
FAR = {4: "198.51.100.7", 6: "2001:db8:7::7"}  # a client behind a router
INSIDE = {4: "172.30.0.2", 6: "fd30::2"}  # a container behind a gateway that masquerades
PATIENCE = 60.0
SERVICE = """
[services.web{version}]
address = "{vip}"
ports = [80]
protocol = ["tcp", "udp"]
directors = ["lb1", "lb2"]
servers = ["web1", {{ peer = "web2", port = 8080 }}, {{ peer = "web3", address = "{box}" }},
           {{ peer = "web3", address = "{other}", port = 8080 }}, "lb2",
           {{ peer = "lb1", address = "{near}", port = 8080 }}]
reply = "{reply}"
check = {{ kind = "tcp", every = 1, timeout = 3, retries = 2, warmup = 0 }}
"""
SERVERS = {"web1", "web2", "box", "other", "lb2", "near"}


class Places:
    """Two directors, one of which is also a server; four more servers, and clients everywhere."""

    def __init__(self, lab, directory, reply):
        self.lab, self.reply = lab, reply
        self.network = Network(lab, directory)
        hosts = [
            self.network.host(name) for name in ("lb1", "lb2", "web1", "web2", "web3", "client", "gateway")
        ]
        self.lb1, self.lb2, self.web1, self.web2, self.web3, self.client, self.gateway = hosts
        self.box, self.other = self.web3.container("box", 7), self.web3.container("other", 8)
        self.near = self.lb1.container("near", 7)
        self.network.more = "".join(
            SERVICE.format(
                version=version, vip=vip, reply=reply,
                **{name: getattr(getattr(self, name), "address" if version == 4 else "address6") for name in ("box", "other", "near")},
            )
            for version, vip in VIPS.items()
        )  # fmt: skip
        containers = {
            "behind a director": self.lb1.container("behind-lb1", 2),
            "behind the other director": self.lb2.container("behind-lb2", 2),
            "behind a server": self.web1.container("behind-web1", 2),
            "behind a server on another port": self.web2.container("behind-web2", 2),
            "beside containers that serve": self.web3.container("beside", 2),
            "behind another host": self.client.container("inside", 2),
        }
        self.clients = {
            place: (each.namespace, {4: each.address, 6: each.address6}) for place, each in containers.items()
        }
        for place, host in {
            "a director": self.lb1, "the other director": self.lb2, "a server": self.web1,
            "a server on another port": self.web2, "a host of containers that serve": self.web3, "another host": self.client,
        }.items():  # fmt: skip
            self.clients[place] = host.namespace, {4: host.address, 6: host.address6}
        for place, each in {
            "a container that serves": self.box,
            "a container that serves behind a director": self.near,
        }.items():
            self.clients[place] = each.namespace, {4: each.address, 6: each.address6}
        # Where bridges are filtered, a server that is its own client needs a port that sends back what arrived on it.
        for host, name in ((self.web3, "box"), (self.lb1, "near")):
            port = f"to-{self.network.namespace_name(name)}"
            host.namespace.run("bridge", "link", "set", "dev", port, "hairpin", "on")
        self._add_outsiders()
        self._forward()
        if reply == "director":
            for host in (self.web1, self.web2, self.web3, self.lb2):
                self._filter_sources(host)
        serve(self.web1.namespace, 80, "web1")
        serve(self.web2.namespace, 8080, "web2")
        serve(self.lb2.namespace, 80, "lb2")
        serve(self.box.namespace, 80, "box")
        serve(self.other.namespace, 8080, "other")
        serve(self.near.namespace, 8080, "near")
        self.network.start()

    def _add_outsiders(self):
        lab, network = self.lab, self.network
        visitor = lab.namespace(network.namespace_name("visitor"))
        lab.plug(network.underlay, visitor.end("eth0", "192.0.2.200/24", "2001:db8::200/64"))
        self.clients["on the LAN"] = visitor, {4: "192.0.2.200", 6: "2001:db8::200"}

        router, far = (
            lab.namespace(network.namespace_name("router")),
            lab.namespace(network.namespace_name("far")),
        )
        lab.plug(network.underlay, router.end("eth0", "192.0.2.201/24", "2001:db8::201/64"))
        lab.veth(
            router.end("far", "198.51.100.1/24", "2001:db8:7::1/64"),
            far.end("eth0", "198.51.100.7/24", "2001:db8:7::7/64"),
        )
        router.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        far.run("ip", "route", "add", "default", "via", "198.51.100.1")
        far.run("ip", "route", "add", "default", "via", "2001:db8:7::1")
        for host in network.peers.values():
            host.namespace.run("ip", "route", "add", "default", "via", "192.0.2.201")
            host.namespace.run("ip", "route", "add", "default", "via", "2001:db8::201")
        self.clients["routed"] = far, FAR

        container = lab.container(
            self.gateway.namespace, network.namespace_name("masked"), "172.30.0.2/24", "fd30::2/64",
            gateways=("172.30.0.1", "fd30::1"), bridge="br1",
        )  # fmt: skip
        nft(
            self.gateway.namespace,
            """table inet gate {
                chain out {
                    type nat hook postrouting priority 100;
                    ip saddr 172.30.0.0/24 oifname "overlay0" masquerade
                    ip6 saddr fd30::/64 oifname "overlay0" masquerade
                }
            }""",
        )
        self.clients["behind a gateway that masquerades"] = (
            container,
            {4: self.gateway.address, 6: self.gateway.address6},
        )

    def _forward(self):
        """Do what the documentation asks of the operator of a director."""
        for host in (self.lb1, self.lb2):
            host.namespace.run(
                "sysctl", "-qw", "net.ipv4.conf.eth0.forwarding=1", "net.ipv4.conf.eth0.send_redirects=0",
                "net.ipv6.conf.all.forwarding=1",
            )  # fmt: skip

    def _filter_sources(self, host):
        """Make the network of *host* drop packets with sources of other networks (BCP 38)."""
        rules = "\n".join(
            f'oifname "eth0" {ip} saddr {VIPS[version]} counter drop'
            for version, ip in ((4, "ip"), (6, "ip6"))
        )
        nft(
            host.namespace,
            f"table inet provider {{\nchain out {{\ntype filter hook postrouting priority 300;\n{rules}\n}}\n}}",
        )


@pytest.fixture(scope="module", params=["direct", "director"])
def places(request, tmp_path_factory):
    missing = missing_requirement()
    if missing:
        pytest.skip(missing)
    with Lab() as lab:
        made = Places(lab, tmp_path_factory.mktemp("places"), request.param)
        namespace, _ = made.clients["behind another host"]
        for vip in VIPS.values():
            wait_until(
                lambda vip=vip: set(names(ask(namespace, vip, 60))) == SERVERS,
                PATIENCE,
                f"all servers at {vip}",
            )
        yield made
        made.network.close()


LOCAL = {  # served by the host itself, which has the address
    "a server": "web1", "behind a server": "web1",
    "a server on another port": "web2", "behind a server on another port": "web2",
}  # fmt: skip

BESIDE = {
    "a host of containers that serve": {"box", "other"}, "beside containers that serve": {"box", "other"},
    "a container that serves": {"box", "other"}, "a director": {"near"}, "behind a director": {"near"},
    "a container that serves behind a director": {"near"},
}  # fmt: skip


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(
    "place",
    [
        "on the LAN", "routed", "behind a gateway that masquerades",
        "a director", "behind a director", "the other director", "behind the other director",
        "a server", "behind a server", "a server on another port", "behind a server on another port",
        "a host of containers that serve", "beside containers that serve",
        "a container that serves", "a container that serves behind a director",
        "another host", "behind another host",
    ],
)  # fmt: skip
def test_client_of_every_place_is_served(places, place, version, protocol):
    namespace, addresses = places.clients[place]
    wanted = {LOCAL[place]} if place in LOCAL else SERVERS
    answers = ask(namespace, VIPS[version], 40, protocol)
    for _ in range(5):  # chance may have left one out
        if set(names(answers)) >= wanted:
            break
        answers += ask(namespace, VIPS[version], 40, protocol)
    assert set(names(answers)) == wanted
    beside = BESIDE.get(place, set())  # a container of the same host sees the host as the client
    for answer in answers:
        if place not in {"a server", "a server on another port"} and answer.server not in beside:
            assert answer.client == addresses[version], answer
