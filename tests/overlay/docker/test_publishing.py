"""Rules that forward ports of the host to containers: literal, and accepted by the real nft."""

from __future__ import annotations

import shutil
from ipaddress import ip_address

import pytest

from overlay.docker.calls import Published
from overlay.docker.publishing import find_conflict, publishing
from overlay.docker.record import DockerEndpoint

V4, V6 = ip_address("10.244.1.5"), ip_address("fd00::5")
WEB, DNS = Published("tcp", 8080, 80), Published("udp", 53, 53, "192.0.2.1")


def endpoint(*published, addresses=(V4,)):
    return DockerEndpoint("1", addresses, None, published)


def test_nothing_is_published_by_itself():
    assert publishing([endpoint(), endpoint()]) == ""


def test_port_leads_to_the_container_from_outside_and_from_the_host_and_back_to_itself():
    text = publishing([endpoint(WEB)])

    rule = "ip daddr != 127.0.0.0/8 fib daddr type local tcp dport 8080 dnat ip to 10.244.1.5:80\n"
    assert text.count(rule) == 2
    assert "hook prerouting priority -100" in text
    assert "hook output priority -100" in text
    assert "ct status dnat ip saddr 10.244.1.5 ip daddr 10.244.1.5 masquerade" in text


def test_one_address_of_the_host_has_the_port_alone_and_only_of_its_family():
    text = publishing([endpoint(DNS, addresses=(V4, V6))])

    assert "ip daddr 192.0.2.1 udp dport 53 dnat ip to 10.244.1.5:53" in text
    assert "ip6" not in text


def test_each_family_leads_to_its_own_address():
    assert "tcp dport 8080 dnat ip6 to [fd00::5]:80" in publishing([endpoint(WEB, addresses=(V4, V6))])


@pytest.mark.netns
@pytest.mark.skipif(shutil.which("nft", path="/usr/sbin:/sbin") is None, reason="nftables is not installed")
def test_nft_takes_all_of_it(lab):
    host = lab.namespace("host")
    text = publishing([endpoint(WEB, DNS, Published("sctp", 1, 1, "2001:db8::1"), addresses=(V4, V6))])

    host.run("nft", "-f", "-", stdin=f"table inet t.ports {{\n{text}}}\n")

    assert "dnat ip6 to [fd00::5]:80" in host.run("nft", "list", "ruleset")


@pytest.mark.parametrize(
    ("wanted", "is_taken"),
    [
        (Published("tcp", 8080, 81), True),
        (Published("tcp", 8080, 81, "192.0.2.9"), True),
        (Published("udp", 8080, 81), False),
        (Published("udp", 53, 1, "192.0.2.1"), True),
        (Published("udp", 53, 1, "192.0.2.2"), False),
        (Published("udp", 53, 1), True),
    ],
)
def test_a_port_belongs_to_one_container(wanted, is_taken):
    assert find_conflict([endpoint(WEB), endpoint(DNS)], [wanted]) == (wanted if is_taken else None)
