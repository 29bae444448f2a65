from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from overlay.importing.places import FileLine
from overlay.services.importing.owners import AmbiguousError, KnownPeers, Newcomers, Owner, free_prefix
from overlay.services.importing.plan import IN_IPIP, PlannedTunnel, RealServer
from peers import toml
from tests.overlay.services.importing.reading import refusal

KEYS = ["AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=", "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI="]
PEERS = f"""[network]
prefix = "10.244.0.0/16"
[peers.a]
public_key = "{KEYS[0]}"
endpoint = "192.0.2.1:51820"
subnets = ["10.244.1.0/24", "10.244.255.128/25"]
[peers.b]
public_key = "{KEYS[1]}"
endpoint = "b.example"
address = "10.244.2.1"
subnets = ["10.244.2.0/24"]
[peers.c]
encapsulation = "ipip"
endpoint = "192.0.2.3"
subnets = ["10.244.3.0/24"]
[peers.d]
encapsulation = "ipip"
endpoint = "192.0.2.3"
subnets = ["10.244.4.0/24"]
"""


def table(text=PEERS):
    return toml.parse(text, Path("peers.toml"))


def real(address, tunnel=IN_IPIP):
    return RealServer(FileLine("k.conf", 1), "real_server", ip_address(address), tunnel=tunnel)


@pytest.mark.parametrize(
    ("address", "owner"),
    [
        ("10.244.2.1", Owner("b")),  # its address
        ("192.0.2.1", Owner("a")),  # its endpoint
        ("10.244.1.7", Owner("a", ip_address("10.244.1.7"))),  # behind it
        ("10.244.2.7", Owner("b", ip_address("10.244.2.7"))),
        ("10.244.3.7", None),  # behind a host without an agent, which passes nothing on
        ("192.0.2.9", None),
        ("fd00::1", None),
    ],
)
def test_server_is_the_peer_with_its_address_endpoint_or_subnet(address, owner):
    assert KnownPeers(table()).find(ip_address(address)) == owner


def test_server_with_the_endpoint_of_two_peers_is_refused():
    error = refusal(AmbiguousError, KnownPeers(table()).find, ip_address("192.0.2.3"))

    assert str(error).startswith("192.0.2.3 is where c and d have their endpoints")


def test_nobody_is_known_without_a_table():
    assert KnownPeers(None).find(ip_address("192.0.2.1")) is None


def test_new_peers_have_names_and_addresses_that_nobody_has():
    known = table(
        PEERS
        + '[peers."192.0.2.9"]\nencapsulation = "ipip"\nendpoint = "192.0.2.8"\naddress = "10.244.255.126"\n'
    )
    newcomers = Newcomers(known.network.prefixes, known)

    first, again, gre, six = map(
        newcomers.add,
        [real("192.0.2.9"), real("192.0.2.9"), real("192.0.2.9", PlannedTunnel("gre")), real("fd00::9")],
    )

    assert first is again
    assert [each.name for each in (first, gre, six)] == [
        "192.0.2.9-server",
        "192.0.2.9-server-server",
        "fd00--9",
    ]
    assert [str(each.address) for each in (first, gre, six)] == [
        "10.244.255.127",
        "10.244.255.125",
        "10.244.255.124",
    ]


def test_new_peers_find_addresses_where_the_overlay_is_full():
    full = table(
        f'[network]\nprefix = "10.244.0.0/16"\n[peers.a]\npublic_key = "{KEYS[0]}"\n'
        'subnets = ["10.244.0.0/16", "10.0.0.0/8", "0.0.0.0/0"]\n'
    )

    address = Newcomers(full.network.prefixes, full).next_address()

    assert full.owners.match(address)[0].prefixlen == 0


def test_new_overlay_has_nothing_of_what_is_imported():
    assert free_prefix([]) == ip_network("10.244.0.0/16")
    assert free_prefix([ip_address("10.244.3.4"), ip_address("fd00::1")]) == ip_network("10.245.0.0/16")
