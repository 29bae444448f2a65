"""What a real host lacks for services that it balances or serves, and the commands in the findings."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from overlay.config import Node
from overlay.host.firewall.read import read_firewall
from overlay.provisioning.setup import HostSetup
from peers import toml
from peers.peer import format_public_key
from tests.overlay.diagnosis.test_firewall import mend, rules
from tests.overlay.provisioning.setup_bench import PRIVATE, TOKYO, host
from tests.peers.examples import key_text

__all__ = ["host"]

pytestmark = pytest.mark.netns

LAN, LAN6 = "192.0.2.100", "2001:db8::100"
PEERS = f"""
[network]
prefix = ["10.244.0.0/16", "fd00:244::/32"]

[peers.paris]
public_key = "{format_public_key(PRIVATE.public)}"
address = ["10.244.1.0", "fd00:244:1::"]

[peers.tokyo]
public_key = "{key_text("tokyo")}"
endpoint = "203.0.113.2"
subnets = ["10.244.2.0/24", "fd00:244:2::/64"]

[services.web]
address = ["{LAN}"]
ports = [80]
"""
DIRECTED = PEERS + 'directors = ["paris"]\nservers = ["tokyo"]\n'
SERVED = PEERS + 'directors = ["tokyo"]\nservers = ["paris"]\n'
ELSEWHERE = DIRECTED.replace(LAN, "203.0.113.80")


@pytest.fixture(autouse=True)
def no_redirects(host):
    """The defaults of a kernel are a finding at each director."""
    host.run("sysctl", "-qw", "net.ipv4.conf.all.send_redirects=0")


@contextlib.contextmanager
def serving(host, text):
    """Move the calling thread to *host*, which is paris; yield a function that returns the findings."""
    table = toml.parse(text, Path("peers.toml"))
    wanted = Node(PRIVATE, table, table.peers["paris"], {})
    with host.entered(), contextlib.closing(HostSetup("overlay0", host.saved)) as setup:
        setup.adopt(wanted, {TOKYO})
        host.setup, host.node = setup, wanted
        yield lambda: setup.findings(wanted, read_firewall())


def test_director_forwards_what_comes_by_the_lan_of_an_address(host):
    host.run("sysctl", "-qw", "net.ipv4.ip_forward=0")
    with serving(host, DIRECTED) as findings:
        (finding,) = findings()

        assert finding.name == "forwarding"
        assert finding.problem == (
            "this host does not forward packets from eth0, so clients there cannot use 192.0.2.100 of services.web"
        )
        assert finding.remedy == "run `sysctl -w net.ipv4.conf.eth0.forwarding=1`, or start with --fix-sysctl"
        mend(host, finding)
        assert findings() == []


def test_fix_sysctl_has_a_director_forward_and_puts_it_back(host):
    before = host.dump()
    with serving(host, DIRECTED.replace(f'["{LAN}"]', f'["{LAN}", "{LAN6}"]')) as findings:
        assert [each.name for each in findings()] == ["forwarding", "forwarding"]
        host.setup.fix_settings(host.node)
        assert findings() == []
        assert host.run("sysctl", "-n", "net.ipv6.conf.all.forwarding").strip() == "1"
    assert host.dump() == before


@pytest.mark.parametrize("service", [SERVED, ELSEWHERE])
def test_servers_and_directors_of_addresses_elsewhere_need_not_forward(host, service):
    host.run("sysctl", "-qw", "net.ipv4.ip_forward=0")
    with serving(host, service) as findings:
        assert findings() == []


def test_address_that_the_host_has_itself_is_not_balanced(host):
    host.run("sysctl", "-qw", "net.ipv4.conf.eth0.forwarding=1")
    host.run("ip", "address", "add", f"{LAN}/24", "dev", "eth0")
    with serving(host, DIRECTED) as findings:
        (finding,) = findings()

        assert finding.problem == (
            "192.0.2.100 of services.web is an address of this host, on eth0, "
            "so its packets stay here and are not balanced"
        )
        assert "`ip address delete 192.0.2.100 dev eth0`" in finding.remedy


@pytest.mark.parametrize("where", ["eth0", "overlay0"])
def test_filter_of_a_director_that_keeps_clients_out_is_found_and_passes_after_the_command(host, where):
    host.run("sysctl", "-qw", "net.ipv4.conf.eth0.forwarding=1")
    rules(host, f"iptables -A FORWARD -i {where} -o overlay0 -d {LAN} -j DROP")
    with serving(host, DIRECTED) as findings:
        (finding,) = findings()

        assert finding.name == "firewall_forward"
        assert finding.problem.startswith(
            f"the firewall of this host drops packets that are forwarded from {where} to overlay0"
        )
        mend(host, finding)
        assert findings() == []


INVALID = {
    "nft": """
nft add table inet fw
nft add chain inet fw pass '{ type filter hook forward priority 0; policy accept; }'
nft add rule inet fw pass ct state vmap '{ established : accept, invalid : drop }'
""",
    "iptables": "iptables -A FORWARD -m conntrack --ctstate INVALID -j DROP",
    "mangle": "iptables -t mangle -A PREROUTING -m conntrack --ctstate INVALID -j DROP",
}


@pytest.mark.parametrize("name", INVALID)
def test_filter_of_a_director_that_drops_invalid_packets_is_found_and_passes_them_after_the_command(
    host, name
):
    host.run("sysctl", "-qw", "net.ipv4.conf.eth0.forwarding=1")
    rules(host, INVALID[name])
    with serving(host, DIRECTED) as findings:
        (finding,) = findings()

        assert finding.name == "firewall_invalid"
        assert (
            "and so all packets of clients of services.web after a server has answered them"
            in finding.problem
        )
        mend(host, finding)
        assert findings() == []


def test_director_that_sees_answers_too_may_drop_invalid_packets(host):
    host.run("sysctl", "-qw", "net.ipv4.conf.eth0.forwarding=1")
    rules(host, INVALID["iptables"])
    with serving(host, SERVED) as findings:
        assert findings() == []


def test_director_that_redirects_what_comes_from_peers_is_found(host):
    host.run("sysctl", "-qw", "net.ipv4.conf.eth0.forwarding=1", "net.ipv4.conf.all.send_redirects=1")
    with serving(host, DIRECTED) as findings:
        (finding,) = findings()

        assert finding.name == "redirects"
        assert finding.problem == (
            "this host sends ICMP redirects to clients behind peers whose packets to services it balances"
        )
        mend(host, finding)
        assert findings() == []


def test_filter_of_a_server_that_keeps_clients_out_is_found_and_passes_after_the_command(host):
    rules(host, "iptables -A INPUT -i overlay0 -p tcp -j DROP")
    with serving(host, SERVED) as findings:
        (finding,) = findings()

        assert finding.problem.startswith(
            "the firewall of this host drops packets from overlay0 for tcp port 80 of 192.0.2.100, so clients of "
            "services.web are not answered (by a rule of chain INPUT"
        )
        assert finding.remedy == "run `iptables -I INPUT -p tcp --dport 80 -j ACCEPT`"
        mend(host, finding)
        assert findings() == []
