"""Real packet filters, as container tools and administrators set them, and the commands that the findings name."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest

from overlay.config import Node
from overlay.diagnosis.firewall import _another_port
from overlay.host.firewall.read import read_firewall
from tests.overlay.diagnosis.examples import facts
from tests.overlay.provisioning.setup_bench import PRIVATE, TOKYO, host, node, set_up
from tests.peers.examples import peer, table

__all__ = ["host"]

pytestmark = [
    pytest.mark.netns,
    pytest.mark.skipif(
        any(shutil.which(each, path="/usr/sbin:/sbin") is None for each in ("iptables", "nft")),
        reason="iptables and nftables are not both installed",
    ),
]

OWN = ("10.244.1.0/24", "fd00:244:1::/64")


@pytest.fixture
def station(host):
    """The host, with a bridge for containers."""
    host.run("ip", "link", "add", "name", "br1", "type", "bridge")
    host.run("ip", "address", "add", "10.244.1.1/24", "dev", "br1")
    host.run("ip", "address", "add", "fd00:244:1::1/64", "dev", "br1", "nodad")
    host.run("ip", "link", "set", "br1", "up")
    return host


def rules(host, text):
    """Run each line of *text* on *host*."""
    for line in text.strip().splitlines():
        host.run("sh", "-c", line)


def in_the_clear(encapsulation):
    """Return a node that others call, whose tunnel has *encapsulation*."""
    paris = peer("paris", *OWN, public_key=PRIVATE.public, endpoint="192.0.2.1")
    tokyo = peer("tokyo", "10.244.2.0/24", endpoint="203.0.113.2")
    return Node(PRIVATE, table(paris, tokyo, encapsulation=encapsulation), paris, {})


def found(host, *, endpoint=None, wanted=None):
    """Return the findings about the packet filters of *host*."""
    wanted = wanted or node("10.244.2.0/24", "fd00:244:2::/64", own=OWN)
    if endpoint is not None:
        wanted = node("10.244.2.0/24", own=OWN, endpoint=endpoint)
    with set_up(host, "10.244.2.0/24", "fd00:244:2::/64", own=OWN) as setup:
        every = setup.findings(wanted, read_firewall())
    return [each for each in every if each.name.startswith(("firewall", "masquerade", "port_"))]


def mend(host, finding):
    host.run("sh", "-c", finding.remedy.partition("`")[2].partition("`")[0])


def test_host_without_packet_filters_has_no_findings(station):
    assert found(station) == []


DOCKER = """
iptables -P FORWARD DROP
iptables -N DOCKER-USER && iptables -A DOCKER-USER -j RETURN && iptables -A FORWARD -j DOCKER-USER
iptables -A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
iptables -A FORWARD -i docker0 ! -o docker0 -j ACCEPT
"""
UFW = """
iptables -P FORWARD DROP
iptables -N ufw-before-forward && iptables -A FORWARD -j ufw-before-forward
iptables -A ufw-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
iptables -A ufw-before-forward -p icmp -m icmp --icmp-type 8 -j ACCEPT
"""
FIREWALLD = """
nft add table inet firewalld
nft add chain inet firewalld filter_FORWARD '{ type filter hook forward priority 10; policy accept; }'
nft add rule inet firewalld filter_FORWARD ct state established,related accept
nft add rule inet firewalld filter_FORWARD ct status dnat accept
nft add rule inet firewalld filter_FORWARD iifname lo accept
nft add rule inet firewalld filter_FORWARD reject with icmpx admin-prohibited
"""


@pytest.mark.parametrize(
    ("text", "place", "command"),
    [
        (
            "iptables -P FORWARD DROP",
            "by the policy of chain FORWARD in table filter of iptables",
            "iptables -I FORWARD -i overlay0 -j ACCEPT && iptables -I FORWARD -o overlay0 -j ACCEPT",
        ),
        (DOCKER, "by the policy of chain FORWARD", "iptables -I DOCKER-USER -i overlay0 -j ACCEPT && iptables -I DOCKER"),
        (UFW, "by the policy of chain FORWARD", "ufw route allow in on overlay0 && ufw route allow out on overlay0"),
        (FIREWALLD, "by a rule of chain filter_FORWARD in table inet firewalld", "nft insert rule inet firewalld filter_FORWARD"),
        ("ip6tables -P FORWARD DROP", "in table filter of ip6tables", "ip6tables -I FORWARD -i overlay0 -j ACCEPT"),
        ("iptables -A FORWARD -i overlay0 -j REJECT", "by a rule of chain FORWARD", "iptables -I FORWARD -i overlay0 -j ACCEPT"),
    ],
    ids=["policy", "docker", "ufw", "firewalld", "ipv6", "rule"],
)  # fmt: skip
def test_filter_that_drops_what_is_forwarded_is_found_and_passes_after_the_command(
    station, text, place, command
):
    rules(station, text)

    (finding,) = found(station)

    assert finding.name == "firewall_forward"
    assert place in finding.problem
    assert finding.remedy.startswith(f"run `{command}")
    if not command.startswith("ufw"):
        mend(station, finding)
        assert found(station) == []


@pytest.mark.parametrize(
    "text",
    [
        "iptables -P FORWARD DROP\niptables -A FORWARD -i overlay0 -j ACCEPT\niptables -A FORWARD -o overlay0 -j ACCEPT",
        "iptables -P FORWARD DROP\niptables -A FORWARD -s 10.244.0.0/16 -j ACCEPT",
        (
            "iptables -P FORWARD DROP\niptables -A FORWARD -m set --match-set x src -j ACCEPT || "
            "iptables -A FORWARD -m addrtype --src-type UNICAST -j ACCEPT"
        ),
        "iptables -A FORWARD -i eth0 -j DROP",
        "iptables -A INPUT -p udp --dport 51821 -j DROP",
    ],
)
def test_filter_that_lets_the_overlay_pass_or_may_do_so_is_not_found(station, text):
    rules(station, text)

    assert found(station, endpoint="192.0.2.1") == []


PUBLISHED = """
iptables -t nat -N DOCKER
iptables -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
iptables -t nat -A DOCKER ! -i docker0 -p PROTOCOL -m PROTOCOL --dport PORT -j DNAT --to-destination 172.17.0.2:PORT
"""
REDIRECTED = """
nft add table ip r
nft add chain ip r c '{ type nat hook prerouting priority -100; }'
nft add rule ip r c iifname eth0 udp dport 51820 redirect to :53
"""


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (
            PUBLISHED.replace("PROTOCOL", "udp").replace("PORT", "51820"),
            "chain DOCKER in table nat of iptables",
        ),
        (REDIRECTED, "chain c in table ip r"),
    ],
)
def test_port_that_is_led_elsewhere_is_found(station, text, place):
    rules(station, text)

    (finding,) = found(station, endpoint="192.0.2.1")

    assert finding.name == "port_redirected"
    assert finding.problem.startswith(
        "the firewall of this host redirects packets from eth0 for UDP port 51820"
    )
    assert place in finding.problem


def test_remedy_for_a_port_of_a_bare_node_does_not_name_a_peers_file():
    """Before, it was to be written under [network]."""
    made = facts()
    bare = replace(made, node=replace(made.node, is_bare=True))

    assert _another_port(made) == "write another port under [network]"
    assert _another_port(bare) == "choose another with `wg set overlay0 listen-port PORT`"


@pytest.mark.parametrize(
    "text",
    [
        PUBLISHED.replace("PROTOCOL", "udp").replace("PORT", "51821"),
        PUBLISHED.replace("PROTOCOL", "tcp").replace("PORT", "51820"),
        "iptables -t nat -A PREROUTING -d 192.0.2.99 -j DNAT --to-destination 10.244.1.9",
    ],
    ids=["another port", "another protocol", "another address"],
)
def test_what_else_is_led_elsewhere_is_not_the_agent_s(station, text):
    rules(station, text)

    assert found(station, endpoint="192.0.2.1") == []


MASQUERADES = {
    "docker": "iptables -t nat -A POSTROUTING -s 10.244.1.0/24 ! -o br1 -j MASQUERADE",
    "cni": """
iptables -t nat -N CNI-4a55ff4b
iptables -t nat -A POSTROUTING -s 10.244.1.7/32 -m comment --comment 'name: "n1" id: "4a55"' -j CNI-4a55ff4b
iptables -t nat -A CNI-4a55ff4b -d 10.244.1.0/24 -j ACCEPT
iptables -t nat -A CNI-4a55ff4b ! -d 224.0.0.0/4 -j MASQUERADE
""",
    "nftables": """
nft add table ip netavark
nft add chain ip netavark POSTROUTING '{ type nat hook postrouting priority 100; policy accept; }'
nft add rule ip netavark POSTROUTING ip saddr 10.244.1.0/24 ip daddr != 10.244.1.0/24 masquerade
""",
    "ipv6": "ip6tables -t nat -A POSTROUTING -s fd00:244:1::/64 ! -o br1 -j MASQUERADE",
}


@pytest.mark.parametrize("text", MASQUERADES.values(), ids=list(MASQUERADES))
def test_masquerading_of_what_enters_the_tunnel_is_found_and_ends_with_the_command(station, text):
    rules(station, text)

    (finding,) = found(station)
    assert finding.name == "masquerade"

    mend(station, finding)

    assert found(station) == []


@pytest.mark.parametrize(
    "text",
    [
        "iptables -t nat -A POSTROUTING -o eth0 -j MASQUERADE",
        "iptables -t nat -A POSTROUTING -s 10.244.1.0/24 ! -d 10.244.0.0/16 -j MASQUERADE",
        "iptables -t nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE",
        "iptables -t nat -A POSTROUTING -m mark --mark 0x4000/0x4000 -j MASQUERADE",
    ],
)
def test_masquerading_of_other_packets_is_no_finding(station, text):
    rules(station, text)

    assert found(station) == []


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ("iptables -P INPUT DROP", "iptables -I INPUT -p udp --dport 51820 -j ACCEPT"),
        (
            (
                "nft add table inet filter\n"
                "nft add chain inet filter input '{ type filter hook input priority 0; policy drop; }'\n"
                "nft add rule inet filter input ct state established,related accept\n"
                "nft add rule inet filter input tcp dport 22 accept"
            ),
            "nft insert rule inet filter input udp dport 51820 accept",
        ),
        (
            "iptables -t raw -A PREROUTING -p udp --dport 51820 -j DROP",
            "iptables -t raw -I PREROUTING -p udp --dport 51820 -j ACCEPT",
        ),
        (
            (
                "nft add table netdev t\n"
                "nft add chain netdev t c '{ type filter hook ingress device eth0 priority 0; }'\n"
                "nft add rule netdev t c tcp dport 51820 drop\n"
                "nft add rule netdev t c ip6 saddr != ::1 drop\n"
                "nft add chain netdev t d '{ type filter hook ingress device eth1 priority 0; policy drop; }'\n"
                "nft add rule netdev t c meta protocol ip udp dport 51820 drop"
            ),
            "nft insert rule netdev t c udp dport 51820 accept",
        ),
    ],
    ids=["iptables", "nftables", "raw", "ingress"],
)
def test_filter_that_keeps_peers_from_calling_is_found_where_they_should(station, text, command):
    rules(station, text)

    assert found(station) == []
    (finding,) = found(station, endpoint="192.0.2.1")
    assert finding.name == "firewall_port"
    assert finding.remedy == f"run `{command}`"

    mend(station, finding)

    assert found(station, endpoint="192.0.2.1") == []


def test_filter_that_bans_the_address_of_a_peer_names_it(station):
    rules(station, f"iptables -I INPUT -s {TOKYO[1][0]} -j REJECT")

    (finding,) = found(station, endpoint="192.0.2.1")

    assert (finding.name, finding.peer) == ("firewall_port", "tokyo")
    assert finding.problem.startswith(
        f"the firewall of this host drops packets from tokyo at {TOKYO[1][0]} for UDP port 51820, so they do not arrive"
    )
    mend(station, finding)
    assert found(station, endpoint="192.0.2.1") == []


@pytest.mark.parametrize(("encapsulation", "protocols"), [("gre", [47]), ("ipip", [4, 41]), ("vxlan", [])])
@pytest.mark.parametrize("program", ["iptables", "nft"])
def test_filter_that_drops_a_protocol_without_ports_is_found_by_its_number(
    station, program, encapsulation, protocols
):
    chain = "nft add chain inet filter input '{ type filter hook input priority 0; policy drop; }'"
    rules(
        station, "iptables -P INPUT DROP" if program == "iptables" else f"nft add table inet filter\n{chain}"
    )

    def portless():
        every = found(station, wanted=in_the_clear(encapsulation))
        return [each for each in every if "IP protocol" in each.problem]

    findings = portless()
    assert [each.problem.partition("IP protocol ")[2].partition(",")[0] for each in findings] == [
        str(each) for each in protocols
    ]

    for finding in findings:
        mend(station, finding)

    assert portless() == []


def test_what_docker_28_drops_before_all_else_is_found(station):
    rules(station, "iptables -t raw -A PREROUTING -d 10.244.1.2/32 ! -i br1 -j DROP")

    (finding,) = found(station)

    assert finding.name == "firewall_raw"
    assert "from overlay0 for 10.244.1.2" in finding.problem
    assert "--allow-direct-routing" in finding.remedy


def test_nothing_is_found_where_the_filters_were_not_read(station):
    rules(station, "iptables -P FORWARD DROP")
    with set_up(station, own=OWN) as setup:
        names = [each.name for each in setup.findings(node(own=OWN))]

    assert not [name for name in names if name.startswith("firewall")]
