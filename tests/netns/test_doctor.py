"""`overlay doctor` on hosts with one fault each: it names that fault, and nothing else.

Most faults are tried on a few pairs of hosts, one after the other and each undone, while other pairs have theirs: a
doctor waits more than it computes.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from overlay.crypto.keys import PrivateKey
from peers.encapsulation import FACTS
from tests.netns.network import PATIENCE, Network
from tests.netns.topology import wait_until
from tests.netns.users import AsUser

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.netns

PAIRS = 4
ENCAPSULATIONS = "test_nothing_is_named_with_any_encapsulation"
# A filter of an Ethernet device (tc-bpf(8)): what is IPv4 and UDP is dropped, the rest passes
DROP_UDP = "6,40 0 0 12,21 0 3 2048,48 0 0 23,21 0 1 17,6 0 0 2,6 0 0 0"
QUICK = {"rekey_timeout": 0.3, "keepalive_timeout": 1.0}


def examine(host, *arguments):
    """Return what the doctor finds on *host*, and check that it exits as it should."""
    done = host.overlay("doctor", "--json", *arguments)
    assert done.stdout, done.stderr
    findings = json.loads(done.stdout)["findings"]
    # How this copy was installed is not under test
    findings = [each for each in findings if each["name"] != "packet_path"]
    assert done.returncode == any(each["severity"] != "notice" for each in findings), done.stderr
    return findings


def names(findings):
    """Return the kinds of *findings*, each with the peer that it is about."""
    return [f"{each['name']} {each['peer']}" if each["peer"] else each["name"] for each in findings]


class Pair:
    """Paris and tokyo, whose agents run, with a container each.  What is undone at the end of a case is put on
    *undo*.
    """

    def __init__(self, lab, directory):
        directory.mkdir()
        self.network = Network(lab, directory)
        self.paris, self.tokyo = self.network.host("paris"), self.network.host("tokyo")
        for host in (self.paris, self.tokyo):
            host.container(f"c{host.number}")
        self.network.start(timing=QUICK)
        self.paris.ping(self.tokyo.address)
        self.undo = contextlib.ExitStack()

    def run(self, *commands, undo=(), host=None):
        """Run *commands* on paris, and *undo* at the end of the case."""
        namespace = (host or self.paris).namespace
        for each in undo:
            self.undo.callback(namespace.run, "sh", "-c", each)
        for each in commands:
            namespace.run("sh", "-c", each)

    def nft(self, chain, rule, host=None):
        """Create a chain with one *rule*, before which a remedy may be inserted."""
        hook = f"{{ type filter hook {chain} priority 0; }}"
        self.run(
            f"nft 'add table inet t; add chain inet t c {hook}; add rule inet t c {rule}'",
            undo=["nft delete table inet t"],
            host=host,
        )

    def reload(self, *replaced, host=None, extra=""):
        """Make paris, or *host*, read a peers file in which each pair of texts is *replaced*."""
        host = host or self.paris
        text = self.network.toml()
        for old, new in replaced:
            assert old in text
            text = text.replace(old, new)
        self.undo.callback(host.reload)
        assert "INFO reloaded" in host.reload(text + extra)

    def wait_well(self):
        """Return once the two reach each other again."""
        self.paris.wait_up(self.tokyo)
        self.tokyo.wait_up(self.paris)
        self.paris.ping(self.tokyo.address)


@dataclass
class Case:
    """A fault of a pair, and what the doctor on paris should find then.

    With *is_mended*, the command in the remedy of the first finding repairs it; *text* is a part of that finding.
    """

    breaking: Callable[[Pair], object]
    expected: list[str]
    text: str = ""
    is_mended: bool = False


@dataclass
class Outcome:
    found: list[dict[str, Any]]
    after: list[dict[str, Any]] = field(default_factory=list)


def bridge(name, *addresses):
    made = f"ip link add {name} type bridge && ip link set {name} up"
    return [made, *(f"ip address add {each} dev {name}" for each in addresses)]


def stop_tokyo(pair):
    pair.tokyo.stop()
    pair.undo.callback(pair.tokyo.start, timing=QUICK)


def hang(pair):
    forwarder = pair.paris.status()["forwarder_pid"]
    pair.undo.callback(os.kill, forwarder, signal.SIGCONT)
    os.kill(forwarder, signal.SIGSTOP)


def write_garbage(pair):
    pair.undo.callback(pair.paris.reload)
    assert "refused" in pair.paris.reload(pair.network.toml() + "colour = 7\n")


def lose_file(pair):
    pair.undo.callback(pair.paris.write)
    pair.paris.peers_path.unlink()
    wait_until(lambda: "is gone" in pair.paris.log, PATIENCE, "the agent to miss its file")


def change_key(pair):
    text = pair.paris.key_path.read_text()
    pair.undo.callback(pair.paris.reload)
    pair.undo.callback(pair.paris.key_path.write_text, text)
    pair.paris.key_path.write_text(PrivateKey(os.urandom(32)).to_base64())
    pair.paris.reload()


def differ_in_preshared_key(pair):
    for host in (pair.paris, pair.tokyo):
        (host.directory / "tokyo.psk").write_text(host.overlay("genpsk").stdout)
        (host.directory / "tokyo.psk").chmod(0o600)
        pair.reload(("[peers.tokyo]\n", '[peers.tokyo]\npreshared_key_file = "tokyo.psk"\n'), host=host)


def mistype_key_there(pair):
    other = (
        pair.paris.public_key[:5]
        + ("A" if pair.paris.public_key[5] != "A" else "B")
        + pair.paris.public_key[6:]
    )
    pair.reload((pair.paris.public_key, other), host=pair.tokyo)
    wait_until(lambda: "other than this node's" in pair.paris.log, PATIENCE, "tokyo to call by the wrong key")


def mistype_key_here(pair):
    other = (
        pair.tokyo.public_key[:5]
        + ("A" if pair.tokyo.public_key[5] != "A" else "B")
        + pair.tokyo.public_key[6:]
    )
    pair.reload((pair.tokyo.public_key, other))

    def is_called():
        # The session with the previous key is answered for a while; tokyo calls once it is not any more.
        pair.tokyo.namespace.run("ping", "-c1", "-W1", pair.paris.address, check=False)
        return "which no peer has" in pair.paris.log

    wait_until(is_called, PATIENCE, "tokyo to call")


def lose_tokyo(pair):
    tokyo = pair.tokyo
    address = f"ip -6 address add {tokyo.outside6}/64 dev eth0 nodad || true"
    pair.run("ip link set eth0 down", undo=[address, "ip link set eth0 up"], host=tokyo)
    # As if some seconds had passed: this host no longer finds it, and soon reports that.
    pair.run("sysctl -qw net.ipv4.neigh.eth0.retrans_time_ms=50", "ip neighbour flush dev eth0")


def let_out_alone(pair):
    pair.nft("input", "udp dport 51820 drop", host=pair.tokyo)
    pair.tokyo.namespace.run("ping", "-c1", "-W1", pair.paris.address, check=False)
    pair.paris.wait_peer(pair.tokyo, "in doubt", lambda row: row["unconfirmed"] >= 4)


def differ_in_gre_key(pair):
    for host, number in ((pair.paris, 7), (pair.tokyo, 8)):
        pair.reload(("[network]\n", f'[network]\nencapsulation = "gre"\ngre_key = {number}\n'), host=host)

    def is_refused():
        pair.tokyo.namespace.run("ping", "-c1", "-W1", pair.paris.address, check=False)
        return (pair.paris.peer(pair.tokyo)["drops"] or {}).get("gre_key")

    wait_until(is_refused, PATIENCE, "paris to refuse what tokyo sends")


def differ_in_mtu(pair):
    """The larger MTU does no harm: what comes out of a tunnel may be larger than the device's MTU."""
    pair.reload(("[network]\n", "[network]\nmtu = 1300\n"), host=pair.tokyo)
    pair.paris.namespace.run("ping", "-c1", "-W2", "-M", "do", "-s", "1380", pair.tokyo.address)


def need_no_endpoints(pair):
    text = pair.network.toml()
    for host in (pair.paris, pair.tokyo):
        text = text.replace(f'endpoint = "{host.outside}"\n', "")
    for host in (pair.paris, pair.tokyo):
        pair.undo.callback(host.start, timing=QUICK)
        pair.undo.callback(host.write)
        pair.undo.callback(host.stop)
        host.stop()
        host.write(text)
    for host in (pair.paris, pair.tokyo):
        host.start(timing=QUICK)


CASES = {
    "nothing": Case(lambda pair: None, []),
    "IPv4 is not forwarded": Case(
        lambda pair: pair.run("sysctl -qw net.ipv4.ip_forward=0"), ["forwarding"], is_mended=True
    ),
    "an interface does not forward": Case(
        lambda pair: pair.run("sysctl -qw net.ipv4.conf.br0.forwarding=0"),
        ["forwarding"],
        "by br0, so 10.244.1",
        is_mended=True,
    ),
    "the MTUs of the two differ": Case(differ_in_mtu, []),
    "IPv6 is not forwarded": Case(
        lambda pair: pair.run("sysctl -qw net.ipv6.conf.all.forwarding=0"), ["forwarding"], is_mended=True
    ),
    "forwarded packets are dropped": Case(
        lambda pair: pair.nft("forward", "iifname overlay0 drop"), ["firewall_forward"], is_mended=True
    ),
    "the policy of FORWARD is DROP": Case(
        lambda pair: pair.run("iptables -P FORWARD DROP", undo=["iptables -P FORWARD ACCEPT", "iptables -F"]),
        ["firewall_forward"],
        "by the policy of chain FORWARD",
        is_mended=True,
    ),
    "the port is closed by a filter here": Case(
        lambda pair: pair.nft("input", "udp dport 51820 drop"), ["firewall_port"], is_mended=True
    ),
    "datagrams are not let out": Case(
        lambda pair: pair.nft("output", "udp dport 51820 drop"), ["firewall_output tokyo"], is_mended=True
    ),
    "a rule drops what comes for a container": Case(
        lambda pair: pair.nft("prerouting", "ip daddr 10.244.1.2 iifname != br0 drop"),
        ["firewall_raw"],
        "for 10.244.1.2, before they are forwarded",
    ),
    "packets into the tunnel are masqueraded": Case(
        lambda pair: pair.run(
            "nft 'add table ip n; add chain ip n c { type nat hook postrouting priority 100; }; "
            "add rule ip n c ip saddr 10.244.1.0/24 oifname != br0 masquerade'",
            undo=["nft delete table ip n"],
        ),
        ["masquerade"],
        is_mended=True,
    ),
    "Docker has the peer's network": Case(
        lambda pair: pair.run(*bridge("docker0", "10.244.2.1/24"), undo=["ip link delete docker0"]),
        ["route_taken tokyo"],
        "docker0 of this host has 10.244.2.0/24",
    ),
    "a bridge has part of the peer's network": Case(
        lambda pair: pair.run(*bridge("virbr0", "10.244.2.129/25"), undo=["ip link delete virbr0"]),
        ["route_taken tokyo"],
        "to that part of 10.244.2.0/24 of tokyo",
    ),
    "a static route leads elsewhere": Case(
        lambda pair: pair.run("ip route add 10.244.2.0/24 via 192.0.2.254"),
        ["route_taken tokyo"],
        is_mended=True,
    ),
    "a rule leads elsewhere": Case(
        lambda pair: pair.run(
            "ip route add default dev eth0 table 77",
            "ip rule add to 10.244.2.0/24 table 77",
            undo=["ip rule delete to 10.244.2.0/24 table 77", "ip route flush table 77"],
        ),
        ["route_taken tokyo"],
        "by table 77",
    ),
    "a blackhole takes the peer's packets": Case(
        lambda pair: pair.run(
            "ip route add blackhole 10.244.2.0/25", undo=["ip route delete blackhole 10.244.2.0/25"]
        ),
        ["route_refused tokyo"],
    ),
    "GSO of the underlay is off": Case(
        lambda pair: pair.run("ethtool -K eth0 gso off"),
        ["offloads_off"],
        "GSO of eth0",
        is_mended=True,
    ),
    "TSO of the tunnel's device is off": Case(
        lambda pair: pair.run("ethtool -K overlay0 tso off"),
        ["offloads_off"],
        "TSO of overlay0",
        is_mended=True,
    ),
    "the MTU in the file is too large": Case(
        lambda pair: pair.reload(("[network]\n", "[network]\nmtu = 1500\n")),
        ["mtu_over_path"],
        "write at most 14",
    ),
    "the underlay is too narrow for IPv6": Case(
        lambda pair: pair.run("ip link set eth0 mtu 1300", undo=["ip link set eth0 mtu 1500"]),
        ["mtu_over_path"],
        "raise the MTU",
    ),
    "a rule leads what containers send past the tunnel": Case(
        lambda pair: pair.run(
            "ip route add default dev eth0 table 77",
            "ip rule add from 10.244.1.0/24 lookup 77 priority 100",
            undo=["ip route flush table 77", "ip rule delete priority 100"],
        ),
        ["route_taken"],
        "out by eth0, by table 77, past the tunnel",
    ),
    "a rule leads what peers send elsewhere": Case(
        lambda pair: pair.run(
            "ip route add default dev eth0 table 77",
            "ip rule add iif overlay0 lookup 77 priority 100",
            undo=["ip route flush table 77", "ip rule delete priority 100"],
        ),
        ["route_taken"],
        "that come in by overlay0 out by eth0",
    ),
    "a rule discards what containers send": Case(
        lambda pair: pair.run(
            "ip rule add from 10.244.1.0/24 to 10.244.2.0/24 blackhole priority 100",
            undo=["ip rule delete priority 100"],
        ),
        ["route_refused"],
        "rejects packets from 10.244.1.",
    ),
    "this host has the address of a peer's endpoint": Case(
        lambda pair: pair.run(
            f"ip address add {pair.tokyo.outside}/24 dev eth0",
            undo=[f"ip address delete {pair.tokyo.outside}/24 dev eth0"],
        ),
        ["endpoint_here tokyo"],
        "is an address of this host, which is paris",
    ),
    "another VPN has the mark": Case(
        lambda pair: (
            pair.run("ip rule add fwmark 77 table 99", undo=["ip rule delete fwmark 77 table 99"]),
            pair.reload(("[network]\n", "[network]\nfwmark = 77\n")),
        ),
        ["mark_shared"],
        "matches the firewall mark 77",
    ),
    "an address to listen on is not there": Case(
        lambda pair: pair.reload(
            ("[peers.paris]\n", '[peers.paris]\nlisten = ["192.0.2.1", "192.0.2.77"]\n')
        ),
        ["listen_address"],
        "192.0.2.77",
    ),
    "no route leads to the endpoint": Case(
        lambda pair: pair.reload((f'endpoint = "{pair.tokyo.outside}"', 'endpoint = "203.0.113.9"')),
        ["no_route tokyo"],
    ),
    "the name of the endpoint has no address": Case(
        lambda pair: pair.reload((f'endpoint = "{pair.tokyo.outside}"', 'endpoint = "tokyo.invalid"')),
        ["name_stale tokyo"],
        "tokyo.invalid was not resolved",
    ),
    "the ends of a tunnel differ in its number": Case(
        differ_in_gre_key, ["tunnel_number tokyo"], "did not have the GRE key 7"
    ),
    "a subnet of the peer is missing in the peers file here": Case(
        lambda pair: pair.reload(
            ('"fd00:244:2::/64"]', '"fd00:244:2::/64", "10.244.20.0/24"]'), host=pair.tokyo
        ),
        ["files_differ tokyo"],
        "tokyo says that it has 10.244.20.0/24",
    ),
    "neither has an endpoint": Case(need_no_endpoints, ["no_endpoint tokyo"]),
    "preshared keys differ": Case(differ_in_preshared_key, ["preshared_key tokyo"], "sha256sum"),
    "the peer has a wrong key for this node": Case(mistype_key_there, ["wrong_key_there tokyo"]),
    "this node has a wrong key for the peer": Case(mistype_key_here, ["unknown_key tokyo"]),
    "the peer's agent does not run": Case(stop_tokyo, ["port_closed tokyo"], "start the agent of tokyo"),
    "the peer's host is gone": Case(lose_tokyo, ["host_absent tokyo"]),
    "a firewall there drops": Case(
        lambda pair: pair.run(
            "nft 'add table inet t; add chain inet t i { type filter hook input priority 0; }; "
            "add chain inet t o { type filter hook output priority 0; }; "
            "add rule inet t i udp dport 51820 drop; add rule inet t o udp dport 51820 drop'",
            undo=["nft delete table inet t"],
            host=pair.tokyo,
        ),
        ["silent tokyo"],
    ),
    "a filter of traffic control drops what arrives": Case(
        lambda pair: pair.run(
            "tc qdisc add dev eth0 clsact",
            f"tc filter add dev eth0 ingress bpf da bytecode '{DROP_UDP}'",
            undo=["tc qdisc delete dev eth0 clsact"],
        ),
        ["tc_drops", "silent tokyo"],
        "filters of traffic control at eth0 (clsact) dropped",
    ),
    "a firewall there lets out, and nothing in": Case(
        let_out_alone, ["unconfirmed tokyo"], "do not reach it"
    ),
    "a firewall there rejects": Case(
        lambda pair: pair.nft(
            "input", "udp dport 51820 reject with icmpx type admin-prohibited", host=pair.tokyo
        ),
        ["peer_filtered tokyo"],
    ),
    "the forwarder hangs": Case(hang, ["forwarder_silent"]),
    "the peers file has a mistake": Case(write_garbage, ["not_loaded"], "colour"),
    "the peers file is gone": Case(lose_file, ["files"], "is gone"),
    "the private key is another": Case(change_key, ["files"], "takes effect only after a restart"),
    "others can read the private key": Case(
        lambda pair: pair.paris.key_path.chmod(0o644), ["file"], "can be read by others", is_mended=True
    ),
    "the bridge of the containers is gone": Case(
        lambda pair: pair.run(
            "ip address delete 10.244.1.1/24 dev br0", undo=["ip address add 10.244.1.1/24 dev br0"]
        ),
        ["subnet_nowhere"],
    ),
}


def try_out(pair, case):
    """Break *pair*, examine it, repair it, and examine it again."""
    with pair.undo:
        case.breaking(pair)
        outcome = Outcome(examine(pair.paris))
        if case.is_mended and names(outcome.found) == case.expected:
            pair.run(outcome.found[0]["remedy"].split("`")[-2])
            outcome.after = examine(pair.paris)
    pair.undo = contextlib.ExitStack()
    pair.wait_well()
    return outcome


def settle_all(hosts):
    """Return the findings of each of *hosts*, asked at the same time, by its name."""
    with ThreadPoolExecutor(len(hosts)) as executor:
        return {
            host.name: names(found) for host, found in zip(hosts, executor.map(examine, hosts), strict=True)
        }


def try_encapsulations(pair):
    """Return the findings of each host of *pair* with each encapsulation."""
    found = {}
    with pair.undo:
        for name in FACTS:
            for host in (pair.paris, pair.tokyo):
                assert "INFO reloaded" in host.reload(
                    pair.network.toml().replace("[network]\n", f'[network]\nencapsulation = "{name}"\n')
                )
            pair.paris.ping(pair.tokyo.address)
            found[name] = settle_all([pair.paris, pair.tokyo])
        for host in (pair.paris, pair.tokyo):
            host.reload()
    return found


@pytest.fixture(scope="module")
def pairs(module_lab, tmp_path_factory):
    directory = tmp_path_factory.mktemp("doctor")
    made = [Pair(module_lab, directory / str(number)) for number in range(PAIRS)]
    yield made
    for pair in made:
        pair.network.close()


@pytest.fixture(scope="module")
def outcomes(pairs, request):
    """The outcome of each selected case, by its name; the next pair that is free tries each."""
    here = [item for item in request.session.items if item.fspath == request.fspath]
    wanted = {item.callspec.id if hasattr(item, "callspec") else item.name for item in here}
    free = list(pairs)
    with ThreadPoolExecutor(len(pairs)) as executor:

        def take(name):
            pair = free.pop()
            try:
                return try_encapsulations(pair) if name == ENCAPSULATIONS else try_out(pair, CASES[name])
            finally:
                free.append(pair)

        yield {name: executor.submit(take, name) for name in (ENCAPSULATIONS, *CASES) if name in wanted}


# Hosts on which no agent runs


def occupy(host):
    with host.namespace.entered():
        taken = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    taken.bind(("", 51820))
    return taken.close


def on_host(command, undo):
    """Return a function that runs *command* on a host, and returns another that undoes it."""

    def breaking(host):
        host.namespace.run("sh", "-c", command)
        return lambda: host.namespace.run("sh", "-c", undo)

    return breaking


def in_file(old, new):
    """Return a function that replaces *old* in the peers file of a host, and returns another that undoes it."""

    def breaking(host):
        text = host.network.toml()
        assert old in text
        host.write(text.replace(old, new))
        return host.write

    return breaking


def with_other_key(host):
    text = host.key_path.read_text()
    host.key_path.write_text(PrivateKey(os.urandom(32)).to_base64())
    return lambda: host.key_path.write_text(text)


def without_key(host):
    away = host.key_path.rename(host.directory / "away")
    return lambda: away.rename(host.key_path)


UNSTARTED = {
    "nothing but that": (lambda host: lambda: None, []),
    "the port is taken": (occupy, ["port_taken"]),
    "the name of the interface is taken": (
        on_host("ip link add overlay0 type bridge", "ip link delete overlay0"),
        ["interface_taken"],
    ),
    "the name of an endpoint has no address": (
        in_file('endpoint = "192.0.2.2"', 'endpoint = "tokyo.invalid"'),
        ["unresolved tokyo"],
    ),
    "no route leads to an endpoint": (
        in_file('endpoint = "192.0.2.2"', 'endpoint = "203.0.113.2"'),
        ["no_route tokyo"],
    ),
    "an address to listen on is not there": (
        in_file("[peers.paris]\n", '[peers.paris]\nlisten = "192.0.2.77"\n'),
        ["listen_address"],
    ),
    "the host does not forward": (
        on_host("sysctl -qw net.ipv4.ip_forward=0", "sysctl -qw net.ipv4.ip_forward=1"),
        ["forwarding"],
    ),
    "a filter closes the port": (
        on_host(
            "nft 'add table inet t; add chain inet t c { type filter hook input priority 0; }; "
            "add rule inet t c udp dport 51820 drop'",
            "nft delete table inet t",
        ),
        ["firewall_port"],
    ),
    "Docker has the peer's network": (
        on_host(" && ".join(bridge("docker0", "10.244.2.1/24")), "ip link delete docker0"),
        ["route_taken tokyo"],
    ),
    "the peers file has a mistake": (in_file("[network]\n", "[network]\ncolour = 7\n"), ["peers_file"]),
    "the key is nobody's": (with_other_key, ["own_key"]),
    "there is no key": (without_key, ["own_key"]),
}


@pytest.fixture(scope="module")
def idle(module_lab, tmp_path_factory, outcomes):
    """A host with a container, on which no agent runs; meanwhile, the pairs are tested."""
    network = Network(module_lab, tmp_path_factory.mktemp("idle"))
    paris, _ = network.host("paris"), network.host("tokyo")
    paris.container("web")
    paris.write()
    return paris


def of_files(host):
    return "--peers", str(host.peers_path), "--key", str(host.key_path)


@pytest.mark.parametrize("name", UNSTARTED)
def test_without_an_agent_that_is_named_and_what_would_keep_one_from_working(idle, name):
    breaking, expected = UNSTARTED[name]
    undo = breaking(idle)
    try:
        found = examine(idle, *of_files(idle))
    finally:
        undo()

    assert found[0]["problem"] == "no overlay agent runs for overlay0 here"
    assert names(found) == ["no_agent", *expected]


def test_what_a_killed_agent_left_is_named(idle):
    idle.start()
    idle.kill()

    found = examine(idle, *of_files(idle))

    assert names(found) == ["no_agent", "guards"]
    idle.overlay("down")


def test_user_without_privileges_gets_sentences(idle):
    user = AsUser(idle.namespace, idle.directory)

    done = user.completed(sys.executable, "-m", "overlay", "doctor", *of_files(idle))

    assert done.returncode == 1
    assert "no overlay agent runs for overlay0" in done.stdout
    assert "Traceback" not in done.stderr


# Hosts whose agents run


@pytest.mark.parametrize("name", CASES)
def test_what_is_wrong_is_named_and_nothing_else(outcomes, name):
    outcome, case = outcomes[name].result(), CASES[name]

    assert names(outcome.found) == case.expected, outcome.found
    assert not case.text or case.text in f"{outcome.found[0]['problem']}: {outcome.found[0]['remedy']}"
    assert names(outcome.after) == []


# No fault


def test_nothing_is_named_with_any_encapsulation(outcomes):
    assert outcomes[ENCAPSULATIONS].result() == {name: {"paris": [], "tokyo": []} for name in FACTS}


def test_nothing_is_named_of_a_hub_with_clients_behind_nat_and_bridges_of_docker(module_lab, tmp_path):
    network = Network(module_lab, tmp_path)
    hub = network.host("hub")
    client, phone = network.host("client", endpoint=None, keepalive=5), network.host("phone", endpoint=None)
    network.peers.pop("hub").container("web")
    network.peers = {"hub": hub, **network.peers}
    nat = module_lab.namespace(network.namespace_name("nat"))
    module_lab.plug(network.underlay, nat.end("eth0", "192.0.2.77/24"))
    module_lab.veth(client.namespace.end("eth1", "10.9.9.2/24"), nat.end("eth1", "10.9.9.1/24"))
    nat.sysctl("net.ipv4.ip_forward=1")
    nat.run(
        "nft",
        "add table ip n; add chain ip n c { type nat hook postrouting priority 100; }; add rule ip n c masquerade",
    )
    client.namespace.ip("link set eth0 down", "route add default via 10.9.9.1")
    client.container("app")
    for command in (*bridge("docker0", "172.17.0.1/16"), *bridge("br-0123456789ab", "172.18.0.1/16")):
        hub.namespace.run("sh", "-c", command)
    hub.start("--docker")
    client.start()
    hub.wait_up(client)

    assert settle_all([hub, client]) == {"hub": [], "client": []}
    assert phone.name not in str(examine(hub))
    hub.stop()
    client.stop()


def test_nothing_is_named_of_a_tap(module_lab, tmp_path):
    network = Network(module_lab, tmp_path, device="tap")
    hosts = [
        network.host(name, subnets=None, address=[f"10.244.0.{number}"])
        for number, name in enumerate(("paris", "tokyo"), 1)
    ]
    network.start()
    hosts[0].ping("10.244.0.2")

    assert settle_all(hosts) == {"paris": [], "tokyo": []}
    network.close()
