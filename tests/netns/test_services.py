"""Virtual services on real hosts: clients in all locations, servers that answer directly, checks, and failover."""

from __future__ import annotations

import collections
import json
import signal
import subprocess
import sys

import pytest

from tests.netns.forks import server
from tests.netns.lan import claims
from tests.netns.network import Network, nft
from tests.netns.topology import wait_until

VIP = "203.0.113.80"
# Answers each connection with the name of the server and the addresses that it sees.
SERVER = """
import contextlib, socket, sys
name, port = sys.argv[1], int(sys.argv[2])
server = socket.create_server(("", port), backlog=128)
print("ready", flush=True)
while True:
    connection, peer = server.accept()
    with connection, contextlib.suppress(OSError):  # a check may have reset it
        local = connection.getsockname()
        connection.sendall(f"{name} {peer[0]} {local[0]} {local[1]}".encode())
"""
CLIENT = """
import socket, sys
address, port, count, patience = sys.argv[1], *map(int, sys.argv[2:])
for _ in range(count):
    try:
        with socket.create_connection((address, port), patience) as connection:
            print(connection.makefile().read(), flush=True)
    except OSError as error:
        print(type(error).__name__, flush=True)
        if isinstance(error, TimeoutError):
            break
"""


class Farm:
    """A director, two servers and a client, all hosts of the overlay; web2 has its server on another port."""

    def __init__(self, lab, directory, more="", vip=VIP):
        self.lab, self.network = lab, Network(lab, directory)
        names = ("lb1", "lb2", "web1", "web2", "client")
        self.lb1, self.lb2, self.web1, self.web2, self.client = (self.network.host(name) for name in names)
        self.network.more = f"""
[services.web]
address = "{vip}"
ports = [80]
directors = ["lb1", "lb2"]
servers = ["web1", {{ peer = "web2", port = 8080 }}]
check = {{ kind = "tcp", every = 0.3, timeout = 2, retries = 0, warmup = 0 }}
{more}"""
        self.inside = self.client.container("inside")
        self.processes = {}

    def start(self):
        self.serve(self.web1, 80)
        self.serve(self.web2, 8080)
        self.network.start()

    def mend(self):
        """Start what has ended since start()."""
        for host, port in ((self.web1, 80), (self.web2, 8080)):
            if self.processes[host.name].poll() is not None:
                self.serve(host, port)
        for host in (self.lb1, self.lb2, self.web1, self.web2, self.client):
            if not host.is_running:
                host.start()

    def serve(self, host, port, name=None):
        process = host.namespace.popen(
            sys.executable, "-c", SERVER, name or host.name, str(port), stdout=subprocess.PIPE
        )
        assert process.stdout.readline() == "ready\n"
        self.processes[name or host.name] = process

    def ask(self, namespace, count=1, port=80, address=VIP, patience=20):
        """Return the answers of the servers to a client in *namespace*, or in that of a container: the name of an error
        if there was none, and nothing more after *patience* seconds without one.
        """
        namespace = getattr(namespace, "namespace", namespace)
        done = server().completed(namespace, CLIENT, ["-c", address, *map(str, (port, count, patience))])
        assert done.returncode == 0, done.stderr
        return [line.split() for line in done.stdout.splitlines()]

    def servers(self, namespace, count=40):
        return collections.Counter(line[0] for line in self.ask(namespace, count))

    def wait_servers(self, namespace, *names):
        count = 12 if len(names) > 1 else 40  # which chance does not send to one of two servers
        wait_until(lambda: set(self.servers(namespace, count)) == set(names))


@pytest.fixture(scope="module")
def shared(module_lab, tmp_path_factory):
    made = Farm(module_lab, tmp_path_factory.mktemp("shared"))
    made.start()
    wait_for_the_first(made)
    yield made
    made.network.close()


@pytest.fixture
def farm(shared):
    """A farm with both servers up, and the first director; tests share it, and what one ended is started again."""
    yield shared
    shared.mend()


asked = farm


def test_connections_of_every_client_are_spread_and_servers_see_who_asks(asked):
    asked.wait_servers(asked.inside, "web1", "web2")
    for line in asked.ask(asked.inside, 10):
        assert line[1] == "10.244.5.2"
        assert line[2:] in ([VIP, "80"], [VIP, "8080"])
    # The client's own host, and the director itself
    assert set(asked.servers(asked.client.namespace)) == {"web1", "web2"}
    assert set(asked.servers(asked.lb1.namespace)) == {"web1", "web2"}


def test_port_without_a_service_is_refused_and_the_address_answers_pings(asked):
    asked.wait_servers(asked.inside, "web1", "web2")
    assert asked.ask(asked.inside, port=81) == [["ConnectionRefusedError"]]
    asked.inside.ping(VIP)


def test_server_that_fails_gets_no_connections_until_it_is_back(farm):
    farm.wait_servers(farm.inside, "web1", "web2")
    farm.lab.end_process(farm.processes["web1"])
    farm.wait_servers(farm.inside, "web2")
    assert set(farm.servers(farm.inside)) == {"web2"}
    farm.serve(farm.web1, 80)
    farm.wait_servers(farm.inside, "web1", "web2")


def test_next_director_takes_over_and_the_first_takes_it_back(farm):
    farm.wait_servers(farm.inside, "web1", "web2")
    wait_for_the_first(farm)
    before = len(farm.client.log)
    farm.lb1.process.send_signal(signal.SIGKILL)
    farm.lb1.process.wait()
    farm.wait_servers(farm.inside, "web1", "web2")
    wait_until(lambda: "balanced by director=lb2" in farm.client.log[before:])
    farm.lb1.start()
    wait_for_the_first(farm)


def test_host_is_as_before_when_the_agent_ends(farm):
    farm.wait_servers(farm.inside, "web1", "web2")
    before = farm.web2.namespace.run("nft", "list", "tables")
    assert "overlay_overlay0" in before
    farm.web2.stop()
    assert "overlay_overlay0" not in farm.web2.namespace.run("nft", "list", "tables")
    assert VIP not in farm.web2.namespace.run("ip", "address")


def listed(host, *arguments):
    return host.services(*arguments)


def wait_for_the_first(farm):
    """Return once the client's host sends to the first director; at a start the second may have been up first."""
    wait_until(lambda: listed(farm.client)[0]["reason"] == "balanced by lb1")


def test_services_are_listed_and_servers_set_by_hand(farm):
    farm.wait_servers(farm.inside, "web1", "web2")
    wait_for_the_first(farm)
    (web,) = listed(farm.lb1)
    assert (web["name"], web["addresses"], web["ports"], web["state"]) == ("web", [VIP], ["80"], "up")
    assert [(each["name"], each["state"], each["weight"]) for each in web["servers"]] == [
        ("web1", "up", 1), ("web2", "up", 1),
    ]  # fmt: skip
    assert sum(each["packets"] for each in web["servers"]) > 20
    assert all(each["reason"].startswith("accepts connections at port 80") for each in web["servers"])

    assert (web["director"]["active"], web["director"]["is_here"]) == ("lb1", True)
    assert (web["quorum"]["live_weight"], web["quorum"]["has_quorum"]) == (2, True)
    wait_until(lambda: listed(farm.lb1)[0]["packets_per_second"] is not None)
    assert "\nservices    1 up\n" in farm.lb1.overlay("status").stdout
    assert "\nservices    1 elsewhere\n" in farm.client.overlay("status").stdout

    drained = farm.lb1.overlay("services", "drain", "web/web1")
    assert drained.stdout == "web/web1 is drained, with a weight of 0\n"
    farm.wait_servers(farm.inside, "web2")
    shown = farm.lb1.overlay("services", "web").stdout
    assert "drained by hand" in shown
    assert farm.lb1.overlay("services", "enable", "web/web1").stdout.startswith("web/web1 is up")
    farm.wait_servers(farm.inside, "web1", "web2")
    assert (
        farm.lb1.overlay("services", "weight", "web/web2", "5").stdout
        == "web/web2 is up, with a weight of 5\n"
    )
    # The other tests expect equal weights: by chance, 40 connections may miss a server that gets a sixth of them.
    assert farm.lb1.overlay("services", "enable", "web/web2").stdout == "web/web2 is up, with a weight of 1\n"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("nothing",), 2, "there is no service 'nothing': there are web"),
        (("drain", "web/nobody"), 2, "there is no server of web 'nobody': there are web1, web2"),
        (("weight", "web/web1", "70000"), 2, "'70000' is not a number from 0 to 65535"),
        (("drain", "nothing/web1"), 2, "there is no service 'nothing'"),
    ],
)
def test_wrong_names_and_weights_get_a_sentence(asked, arguments, code, said):
    told = asked.lb1.overlay("services", *arguments)
    assert (told.returncode, told.stdout) == (code, "")
    assert said in told.stderr


def test_node_that_is_no_director_says_who_is(asked):
    asked.wait_servers(asked.inside, "web1", "web2")
    wait_for_the_first(asked)
    (web,) = listed(asked.client)
    assert (web["state"], web["servers"]) == ("elsewhere", [])
    told = asked.client.overlay("services", "drain", "web/web1")
    assert (told.returncode, told.stderr) == (
        1,
        "Error: this node is not a director of web: ask lb1 or lb2\n",
    )


LAN_VIP = "192.0.2.100"


@pytest.fixture(scope="module", params=["the overlay decides", "VRRP decides"])
def shared_lan(request, module_lab, tmp_path_factory):
    """A farm whose address is on the link that all hosts share, and a client there that is not in the overlay."""
    vrrp = 'vrrp = { router = 51, interface = "eth0", interval = 0.5 }' if "VRRP" in request.param else ""
    farm = Farm(module_lab, tmp_path_factory.mktemp("lan"), vrrp, LAN_VIP)
    farm.start()
    for host in (farm.lb1, farm.lb2):
        host.namespace.sysctl("net.ipv4.conf.eth0.forwarding=1", "net.ipv4.conf.eth0.send_redirects=0")
    farm.visitor = module_lab.namespace(farm.network.namespace_name("visitor"))
    module_lab.plug(farm.network.underlay, farm.visitor.end("eth0", "192.0.2.200/24"))
    yield farm
    farm.network.close()


@pytest.fixture
def lan(shared_lan):
    """It, once the client sends to the first director; what a test has ended is started again."""
    mac = shared_lan.lb1.namespace.run("cat", "/sys/class/net/eth0/address").strip()

    def is_the_first_asked():
        shared_lan.ask(shared_lan.visitor, address=LAN_VIP)
        return mac in shared_lan.visitor.run("ip", "neighbour", "show", LAN_VIP)

    wait_until(is_the_first_asked)
    yield shared_lan
    shared_lan.mend()


def test_client_of_the_lan_is_served_and_answered_directly_also_after_the_director_died(lan):
    def served():
        return {line[0] for line in lan.ask(lan.visitor, 12, address=LAN_VIP)} == {"web1", "web2"}

    wait_until(served)
    assert lan.ask(lan.visitor, 1, address=LAN_VIP)[0][1:3] == ["192.0.2.200", LAN_VIP]
    place = lan.visitor.run("ip", "neighbour", "show", LAN_VIP)
    lan.lb1.process.send_signal(signal.SIGKILL)
    lan.lb1.process.wait()
    wait_until(lambda: lan.visitor.run("ip", "neighbour", "show", LAN_VIP) != place)
    wait_until(served)


DROPPING_INVALID = """
table inet fw {
    chain pass {
        type filter hook forward priority 0
        ct state invalid drop
    }
}
"""


def test_firewall_of_a_director_that_drops_invalid_packets_is_named_with_a_remedy_that_helps(lan):
    """It sees no answer of a server, so connection tracking considers the client's next packet invalid."""

    def served():
        return {line[0] for line in lan.ask(lan.visitor, 12, address=LAN_VIP)} == {"web1", "web2"}

    wait_until(served)
    for host in (lan.lb1, lan.lb2):
        nft(host.namespace, DROPPING_INVALID)

    assert lan.ask(lan.visitor, 1, address=LAN_VIP, patience=5) == [["TimeoutError"]]

    def note(host):
        return next((each for each in host.status()["notes"] if "drops invalid packets" in each), None)

    for host in (lan.lb1, lan.lb2):
        wait_until(lambda host=host: note(host), 90)
        host.namespace.run("sh", "-c", note(host).partition("`")[2].partition("`")[0])
    assert served()


def test_servers_on_the_link_are_quiet_about_the_address(lan):
    settings = lan.web1.namespace.run(
        "sysctl", "net.ipv4.conf.eth0.arp_ignore", "net.ipv4.conf.eth0.arp_announce"
    )
    assert settings.split() == [
        "net.ipv4.conf.eth0.arp_ignore",
        "=",
        "1",
        "net.ipv4.conf.eth0.arp_announce",
        "=",
        "2",
    ]
    lan.web1.stop()
    assert "= 1" not in lan.web1.namespace.run("sysctl", "net.ipv4.conf.eth0.arp_ignore")


def test_host_on_the_link_that_has_the_address_too_is_named_with_the_remedy(lan):
    mac = lan.visitor.run("cat", "/sys/class/net/eth0/address").strip()
    said = f"{LAN_VIP} is here, but the host with the Ethernet address {mac} on eth0 claims it too"

    with claims(lan.visitor, LAN_VIP) as claim:

        def is_noticed():
            claim()
            return any(said in note for note in lan.lb1.status()["notes"])

        wait_until(is_noticed, 60)

    assert said in lan.lb1.overlay("services").stdout.replace("\n", " ")
    assert any(said in note for note in json.loads(lan.lb1.overlay("services", "--json").stdout)["notes"])
    assert lan.lb1.log.count("virtual address claimed by another host") == 1
    assert "claimed by another host" not in lan.lb2.log
