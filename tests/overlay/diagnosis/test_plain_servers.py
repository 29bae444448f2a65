"""What a real server without an agent needs."""

from __future__ import annotations

import re

import pytest

from overlay.diagnosis.plain_servers import commands_by_peer
from peers.toml import parse
from tests.peers.services.files import HEAD, PATH, PLAIN, read, web
from tests.test_imports import ROOT

SERVICE = web("ports = 80", "servers = ['plain', 'web1']")


def commands(*texts):
    """Return the commands for the peer ``plain``."""
    return [each.command for each in commands_by_peer(read(*texts))["plain"]]


def test_a_kernels_ipip_needs_a_device_an_address_settings_and_a_segment_size():
    assert commands(SERVICE, PLAIN) == [
        "modprobe ipip",
        "ip link set tunl0 up",
        "ip address add 192.0.2.100/32 dev tunl0",
        "sysctl -w net.ipv4.conf.tunl0.rp_filter=2",
        "sysctl -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2",
        (
            "nft 'add table inet services; "
            "add chain inet services answers { type filter hook output priority mangle; }; "
            "add rule inet services answers ip saddr { 192.0.2.100 } tcp flags syn "
            "tcp option maxseg size > 1380 tcp option maxseg size set 1380'"
        ),
    ]


def test_an_address_of_the_overlay_needs_no_arp_settings():
    inside = web('address = "10.244.200.1"', "servers = 'plain'")

    assert not [each for each in commands(inside, PLAIN) if "arp_" in each]


def test_ipv6_has_a_device_of_its_own_and_no_reverse_path_filter():
    six = web('address = "2001:db8::100"', "servers = 'plain'")

    assert commands(six, PLAIN)[:3] == [
        "modprobe sit",
        "ip link set sit0 up",
        "ip address add 2001:db8::100/128 dev sit0 nodad",
    ]
    assert not [each for each in commands(six, PLAIN) if "rp_filter" in each]


def test_over_ipv6_one_device_takes_both_families():
    both = web('address = ["192.0.2.100", "2001:db8::100"]', "servers = 'plain'")
    plain = PLAIN.replace("198.51.100.50", "2001:db8:f::50")

    assert commands(both, plain)[:3] == [
        "ip -6 tunnel add services mode any local 2001:db8:f::50 remote :: encaplimit none",
        "ip link set services up",
        "ip address add 192.0.2.100/32 dev services",
    ]
    assert "ip address add 2001:db8::100/128 dev services nodad" in commands(both, plain)


def test_the_segment_size_follows_the_mtu_of_the_network():
    text = (HEAD + SERVICE + PLAIN).replace("[network]", "[network]\nmtu = 1400")

    found = commands_by_peer(parse(text, PATH))["plain"]

    assert found[-1].command.endswith("maxseg size set 1360'")


@pytest.mark.parametrize(
    ("network", "endpoint", "size"),
    [
        ('encapsulation = "gre"\ngre_checksum = true', "198.51.100", 1500 - 20 - 8 - 40),
        (
            'encapsulation = "gre"\ngre_checksum = true\ngre_sequence = true',
            "198.51.100",
            1500 - 20 - 12 - 40,
        ),
        ('encapsulation = "gre"\ngre_key = 7', "198.51.100", 1500 - 20 - 8 - 40),
        ('encapsulation = "ipip"', "198.51.100", 1500 - 20 - 40),
        ('encapsulation = "ipip"', "2001:db8::", 1500 - 40 - 40),
    ],
)
def test_the_segment_size_is_what_the_widest_headers_leave(network, endpoint, size):
    text = (
        (HEAD + SERVICE + PLAIN)
        .replace("[network]", f"[network]\n{network}")
        .replace("198.51.100.", endpoint)
    )
    text = text.replace(endpoint, endpoint if ":" in endpoint else f"{endpoint}.")

    found = commands_by_peer(parse(text, PATH))["plain"]

    assert found[-1].command.endswith(f"maxseg size set {size}'")


def test_datagrams_have_no_segment_size():
    udp = web("ports = 53", 'protocol = "udp"', "servers = 'plain'")

    assert not [each for each in commands(udp, PLAIN) if "maxseg" in each]


def test_another_tunnel_is_named_and_not_made():
    gre = PLAIN.replace("ipip", "gre")

    assert commands(SERVICE, gre)[0] == "ip address add 192.0.2.100/32 dev TUNNEL"


def test_addresses_of_all_services_of_a_server_are_given_once():
    more = '[services.more]\naddress = ["192.0.2.100", "192.0.2.101"]\nports = 443\nsorry = "plain"\n'

    given = [each for each in commands(SERVICE, more, PLAIN) if "address add" in each]

    assert given == ["ip address add 192.0.2.100/32 dev tunl0", "ip address add 192.0.2.101/32 dev tunl0"]


def test_agents_and_peers_that_serve_nothing_need_nothing():
    assert commands_by_peer(read(web("servers = 'web1'"), PLAIN)) == {}
    assert commands_by_peer(read(SERVICE, PLAIN, "agent = true")) == {}


def test_the_documented_commands_are_those_for_the_documented_file():
    page = (ROOT / "docs" / "services.md").read_text()
    example, shown = (
        re.search(f"```{language}\n(.*?)```", page, re.DOTALL)[1] for language in ("toml", "text")
    )

    (needed,) = commands_by_peer(parse(example, PATH)).values()

    assert [line for line in shown.splitlines() if not line.startswith("#")] == [
        each.command for each in needed
    ]
    assert {line for line in shown.splitlines() if line.startswith("#")} == {
        f"# {each.why}" for each in needed
    }
