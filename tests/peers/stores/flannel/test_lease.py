from __future__ import annotations

import json
from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peers.errors import StoreError
from peers.stores.etcd.layout import MalformedError
from peers.stores.etcd.location import EtcdLocation
from peers.stores.flannel.lease import AgentData, Keys, Lease, locate
from tests.peers.stores.flannel.forms import LITERAL, PUBLIC_KEY

KEYS = Keys("coreos.com/network")
ADDRESS = IPv4Address("192.0.2.11")
AGENT = AgentData("paris", bytes(range(32)), "0" * 32, 51820)


@pytest.mark.parametrize(
    ("backend", "lease"),
    [
        ("udp", Lease(ADDRESS, "udp")),
        ("ipip", Lease(ADDRESS, "ipip")),
        ("vxlan", Lease(ADDRESS, "vxlan", mac=bytes.fromhex("aabbccddeeff"), vni=1)),
    ],
)
def test_a_lease_in_flannelds_literal_form_is_read_and_written(backend, lease):
    value = (LITERAL[backend] % ADDRESS).encode()

    assert Lease.parse(value) == lease
    assert lease.build() == value


def test_a_lease_of_flannelds_wireguard_backend_is_read_and_written():
    value = (LITERAL["wireguard"] % ADDRESS).encode()

    lease = Lease.parse(value)

    assert (lease.port, lease.build()) == (51820, value)
    assert PUBLIC_KEY in value.decode()


def test_a_lease_of_an_older_flanneld_has_no_port():
    value = json.dumps(
        {"PublicIP": "192.0.2.11", "BackendType": "wireguard", "BackendData": {"PublicKey": PUBLIC_KEY}}
    )

    assert Lease.parse(value.encode()).port is None


@given(
    st.integers(0x0B000000, 0x7EFFFFFF).map(IPv4Address),
    st.sampled_from(["udp", "ipip", "vxlan", "wireguard"]),
    st.none() | st.just(AGENT),
    st.integers(1, 65535),
)
def test_what_is_built_is_read_back(address, backend, agent, number):
    lease = {
        "vxlan": Lease(address, backend, mac=bytes.fromhex("021122334455"), vni=number, agent=agent),
        "wireguard": Lease(address, backend, public_key=bytes(range(1, 33)), port=number, agent=agent),
    }.get(backend, Lease(address, backend, agent=agent))

    assert Lease.parse(lease.build()) == lease


def test_flanneld_finds_its_members_alone_in_a_lease_of_ours():
    found = json.loads(Lease(ADDRESS, "udp", agent=AGENT).build())

    assert {name: found[name] for name in found if name != "Overlay"} == json.loads(LITERAL["udp"] % ADDRESS)
    assert "BackendType" not in found


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("{", "it is not JSON"),
        ("{}", "its PublicIP is not an IPv4 address"),
        ('{"PublicIP":"0.0.0.0"}', "its PublicIP is not the address of a single host"),
        ('{"PublicIP":"224.0.0.1"}', "its PublicIP is not the address of a single host"),
        ('{"PublicIP":"192.0.2.1","BackendType":7}', "its BackendType is not a text"),
        ('{"PublicIP":"192.0.2.1","BackendType":"vxlan"}', "its VtepMAC is none"),
        (
            '{"PublicIP":"192.0.2.1","BackendType":"vxlan","BackendData":{"VtepMAC":"02:00:00:00:00:01","VNI":-1}}',
            "its vni is not a number",
        ),
        ('{"PublicIP":"192.0.2.1","BackendType":"wireguard","BackendData":7}', "its PublicKey is none"),
        ('{"PublicIP":"192.0.2.1","Overlay":7}', "what it says of an agent is not an object"),
        ('{"PublicIP":"192.0.2.1","Overlay":{"Name":"a b"}}', "its name is not that of a peer"),
        ('{"PublicIP":"192.0.2.1","Overlay":{"Name":"a"}}', "its instance is not 32 hexadecimal digits"),
        (
            '{"PublicIP":"192.0.2.1","Overlay":{"Name":"a","Instance":"%s"}}' % ("0" * 32),
            "its port is missing",
        ),
        (
            '{"PublicIP":"192.0.2.1","Overlay":{"Name":"a","Instance":"%s","Port":1}}' % ("0" * 32),
            "its PublicKey is none",
        ),
    ],
)
def test_what_is_no_lease_is_malformed(value, reason):
    with pytest.raises(MalformedError, match=reason):
        Lease.parse(value.encode())


@given(st.binary(max_size=200))
def test_any_bytes_are_malformed(value):
    with pytest.raises(MalformedError):
        Lease.parse(value)


def test_a_key_is_that_of_flanneld():
    subnet = IPv4Network("10.5.52.0/24")

    assert KEYS.lease(subnet) == b"/coreos.com/network/subnets/10.5.52.0-24"
    assert KEYS.subnet_of(KEYS.lease(subnet)) == subnet
    assert KEYS.subnet_of(b"/coreos.com/network/config") is None
    # With a dual stack the IPv6 subnet stands behind it (pkg/subnet/subnet.go).
    assert KEYS.subnet_of(b"/coreos.com/network/subnets/10.5.52.0-24&2001-cafe-42----64") == subnet


@pytest.mark.parametrize(
    "name", [b"", b"x", b"10.5.52.1-24", b"10.5.52.0", b"fd00---64", b"\xff", b"10.5.52.0-24&x"]
)
def test_another_key_among_the_leases_is_malformed(name):
    with pytest.raises(MalformedError):
        KEYS.subnet_of(b"/coreos.com/network/subnets/" + name)


@pytest.mark.parametrize(
    ("place", "path"),
    [
        ("//h", "coreos.com/network"),
        ("//h/", "coreos.com/network"),
        ("//h/coreos.com/network", "coreos.com/network"),
        ("//h//a//b/", "a/b"),
    ],
)
def test_flannels_keys_are_where_the_url_says_or_where_flanneld_has_them(place, path):
    assert locate(EtcdLocation.parse("flannel+etcd", place)).path == path


@pytest.mark.parametrize("path", ["a" * 200, "%00", "caf%C3%A9"])
def test_a_path_that_cannot_be_that_of_keys_is_refused(path):
    with pytest.raises(StoreError, match="write flannel's etcd-prefix after the host"):
        locate(EtcdLocation.parse("flannel+etcd", f"//h/{path}"))
