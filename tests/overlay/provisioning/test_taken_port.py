from __future__ import annotations

from shlex import quote

import pytest

from overlay.amending import amend
from overlay.config import Node
from overlay.crypto.keys import PrivateKey
from overlay.host.holders import Holder
from overlay.provisioning.taken_port import describe, describe_own, remedy
from overlay.starting.bare import BareStore
from overlay.uapi.language import DeviceChange
from peers.stores import Location
from tests.peers.examples import peer, table

PRIVATE = PrivateKey(bytes(range(32)))
EVERYWHERE = "into the peers file of every host"


def node(name="paris", encapsulation="wireguard", location="peers.toml", **fields):
    own = peer(name, "10.244.1.0/24", public_key=PRIVATE.public, **fields)
    return Node(
        PRIVATE,
        table(own, peer("tokyo", "10.244.2.0/24", endpoint="192.0.2.2"), encapsulation=encapsulation),
        own,
        {},
        location=Location.parse(location),
    )


OWN_PORT = f"write a listen_port of its own under [peers.paris], or another port under [network] {EVERYWHERE}"


@pytest.mark.parametrize(
    ("holder", "said"),
    [
        (None, "another program: stop that (`ss -lunp` shows it)"),
        (
            Holder(0, 77, "overlay", "overlay0"),
            "the agent of overlay0 (process 77): stop that with `overlay down --interface overlay0`",
        ),
        (Holder(0, 77, "dnsmasq"), "dnsmasq (process 77 of user root): stop that"),
        (
            Holder(4_000_000_000),
            (
                "a socket of user 4000000000 whose process this agent cannot see: stop that (`ss -lunp`, run by root, "
                "shows it unless the kernel itself has the port, as for a WireGuard or VXLAN interface)"
            ),
        ),
    ],
)
def test_who_has_a_port_is_named_as_far_as_it_is_known(holder, said):
    assert describe(node(), "wireguard", 51820, holder) == f"UDP port 51820 is taken by {said}, or {OWN_PORT}"


def test_port_of_this_very_agent_is_told_so():
    assert describe_own(node(), "udp", 51820, "wireguard") == (
        "UDP port 51820 is in use by this agent for wireguard: write another udp_port under [network] "
        f"{EVERYWHERE}, or restart the agent"
    )


@pytest.mark.parametrize(
    ("of", "encapsulation", "said"),
    [
        (node(), "wireguard", OWN_PORT),
        (
            node(endpoint="192.0.2.1"),
            "wireguard",
            (
                "write a listen_port of its own under [peers.paris], and that port into its endpoint, or another port "
                f"under [network] {EVERYWHERE}"
            ),
        ),
        (
            node("paris.lan", listen_port=4500, endpoint="192.0.2.1"),
            "wireguard",
            'write another listen_port under [peers."paris.lan"], and that port into its endpoint',
        ),
        (node(listen_port=4500), "vxlan", f"write another vxlan_port under [network] {EVERYWHERE}"),
        (
            node(encapsulation="udp", endpoint="192.0.2.1"),
            "udp",
            (
                "write a listen_port of its own under [peers.paris], and that port into its endpoint, or another "
                f"udp_port under [network] {EVERYWHERE}"
            ),
        ),
    ],
)
def test_keys_to_change_are_those_that_the_port_comes_from(of, encapsulation, said):
    assert remedy(of, encapsulation) == said


ETCD = "etcd://10.0.0.5:2379/office"
EDIT = f"with `overlay network edit --peers {ETCD}`"
FLANNEL = "flannel's config, /coreos.com/network/config in etcd"


@pytest.mark.parametrize(
    ("of", "encapsulation", "said"),
    [
        (
            node(location=ETCD, endpoint="192.0.2.1"),
            "wireguard",
            f"write another port under [network] {EDIT}",
        ),
        (
            node(location=ETCD, listen_port=4500),  # the document has it: no host that joins has such a key
            "wireguard",
            f"write another listen_port under [peers.paris] {EDIT}",
        ),
        (
            node(location=f"{ETCD}?admin-key=a.key"),
            "vxlan",
            f"write another vxlan_port under [network] {EDIT.replace(ETCD, quote(f'{ETCD}?admin-key=a.key'))}",
        ),
        (
            node(location="flannel+etcd://10.0.0.5"),
            "wireguard",
            f"write another Backend.ListenPort into {FLANNEL}, if Backend.Type there is wireguard",
        ),
        (
            node(location="flannel+etcd://10.0.0.5"),
            "vxlan",
            f"write another Backend.Port into {FLANNEL}, and restart flanneld on its hosts",
        ),
    ],
)
def test_network_in_etcd_is_changed_there(of, encapsulation, said):
    assert remedy(of, encapsulation) == said


def test_port_that_wg_chose_is_changed_by_wg():
    bare = BareStore("wg0").first_node()

    said = "choose another with listen-port of `wg set`, or ListenPort in the file of wg-quick"
    assert remedy(bare, "wireguard") == said
    assert remedy(amend(node(), DeviceChange(listen_port=4500)), "wireguard") == said
