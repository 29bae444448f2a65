"""A file of wg-quick is read as wg-quick 1.0.20210914 reads it, and what is written is read back."""

import contextlib
from ipaddress import ip_interface, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.importing.places import UnreadableError
from overlay.wg_quick.conf import Conf, Host, Other
from overlay.wg_quick.exporting import NOWHERE
from peers.peer import Endpoint
from tests.overlay.wg_quick.files import preshared, private, text

FILE = """
    # /etc/wireguard/wg0.conf
    [interface]   # paris
    PrivateKey={private_paris}
    address = 10.244.0.1/16,fd00:244::1/64
    Address = 10.244.0.99 # another
    LISTENPORT = 51820
    FwMark = 0xca6c
    MTU = 1420
    DNS = 1.1.1.1, example.net
    PostUp = iptables -A FORWARD -i %i -j ACCEPT; echo a=b

    ### Client tokyo
    [Peer]
    PublicKey = {public_tokyo}
    PresharedKey = {psk_tokyo}
    AllowedIPs = 10.244.0.2, 10.244.2.7/24
    AllowedIPs = fd00:244::2/128
    Endpoint = tokyo.example.net:4500
    PersistentKeepalive = 25

    [Peer]
    # Name = Oslo's router
    PublicKey = {public_oslo}
    Endpoint = [2001:db8::1]:51820
    PersistentKeepalive = off
    AllowedIPs =
"""


def test_file_is_read_with_everything_in_it():
    conf = Conf.parse(text(FILE), "wg0.conf")

    assert conf.host == Host(
        NOWHERE,
        None,
        private("paris"),
        tuple(map(ip_interface, ("10.244.0.1/16", "fd00:244::1/64", "10.244.0.99/32"))),
        51820,
        0xCA6C,
        1420,
    )
    assert [(str(each.place), each.key) for each in conf.host.unsupported] == [
        ("wg0.conf:9", "DNS"),
        ("wg0.conf:10", "PostUp"),
    ]
    assert conf.others == (
        Other(
            NOWHERE,
            private("tokyo").public,
            "tokyo",
            preshared("tokyo"),
            tuple(map(ip_network, ("10.244.0.2/32", "10.244.2.0/24", "fd00:244::2/128"))),
            Endpoint("tokyo.example.net", 4500),
            25,
        ),
        Other(NOWHERE, private("oslo").public, "Oslos-router", endpoint=Endpoint("2001:db8::1", 51820)),
    )


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("[Interface]\n[Interface]", "x.conf:2: [Interface] is here twice, first in line 1; keep one"),
        ("PrivateKey = a", "x.conf:1: is before the first [Interface] or [Peer]; name a wg-quick file"),
        ("[Network]", "x.conf:1: is neither [Interface] nor [Peer]; name a wg-quick file"),
        ("", "x.conf:1: has no [Interface], so it is not a wg-quick file; name one that has it"),
        ("[Interface]\nAddress 10.0.0.1", "x.conf:2: is not KEY = VALUE; correct the line"),
        (
            "[Interface]\nJc = 4",
            "x.conf:2: wg-quick has no such key in [Interface]; remove the line, or correct the key",
        ),
        (
            "[Interface]\nListenPort = 70000",
            "x.conf:2: ListenPort is not a number from 0 to 65535; correct it",
        ),
        ("[Interface]\nMTU = 1420\nMTU = 1420", "x.conf:3: MTU is here twice, first in line 2; keep one"),
        (
            "[Interface]\nAddress = 10.0.0.x",
            "x.conf:2: Address 10.0.0.x is not an address such as 10.244.0.1/24",
        ),
        (
            "[Interface]\nAddress = 0.0.0.0/0",
            "x.conf:2: Address 0.0.0.0/0 is not an address that a host can have",
        ),
        (
            "[Interface]\nPrivateKey = secret",
            "x.conf:2: PrivateKey: a key has 44 characters of base64, as `wg genkey` writes it; this has 6",
        ),
        ("[Interface]\n[Peer]\n", "x.conf:2: this peer has no PublicKey; write it, or remove the section"),
        (
            "[Interface]\n[Peer]\nPublicKey = {public_a}\nEndpoint = a.example.net",
            "x.conf:4: Endpoint: has no port; write HOST:PORT",
        ),
        (
            "[Interface]\n[Peer]\nPublicKey = {public_a}\n[Peer]\nPublicKey = {public_a}",
            "x.conf:4: this peer is here twice, first in line 2; make one section of both",
        ),
        (
            "[Interface]\n[Peer]\nPublicKey = {public_a}\nAllowedIPs = 10.0.0.0/24, ::/129",
            "x.conf:4: AllowedIPs ::/129 is not a prefix such as 10.244.0.0/24",
        ),
    ],
)
def test_wrong_file_is_one_sentence_with_file_and_line(line, sentence):
    with pytest.raises(UnreadableError) as caught:
        Conf.parse(text(line), "x.conf")

    assert str(caught.value) == sentence


@given(
    st.text(st.characters(exclude_categories=["Cs"]))
    | st.lists(st.sampled_from(text(FILE).split("\n"))).map("\n".join)
)
def test_any_text_is_a_file_or_one_sentence(anything):
    with contextlib.suppress(UnreadableError):
        Conf.parse(anything, "x.conf")


def test_private_key_and_commands_are_in_no_repr():
    conf = Conf.parse(text(FILE), "wg0.conf")

    shown = repr(conf)

    assert private("paris").to_base64() not in shown
    assert preshared("tokyo").to_base64() not in shown
    assert "iptables" not in shown


@pytest.mark.parametrize(
    ("comments", "name"),
    [
        ("# Name = paris\n[Peer]", "paris"),
        ("#friendly_name=paris office\n[Peer]", "paris-office"),
        ("[Peer]\n#+Name = paris", "paris"),
        ("### Client paris\n[Peer]", "paris"),
        ("# BEGIN_PEER paris\n[Peer]", "paris"),
        ("# END_PEER oslo\n# BEGIN_PEER paris\n[Peer]", "paris"),
        ("### begin paris ###\n[Peer]", "paris"),
        ("# Alice's phone\n[Peer]", "Alices-phone"),
        ("[Peer] # paris", "paris"),
        ("[Peer]\n# paris", "paris"),
        ("# Zoë\n[Peer]", "Zoe"),
        ("# keep the next one, it is the router in the cellar\n[Peer]", None),
        ("# about others\n\n[Peer]", None),
        ("# Endpoint = 192.0.2.1:51820\n[Peer]", None),
        ("# ------\n[Peer]", None),
        ("# 東京\n[Peer]", None),
        (f"# Name = {'x' * 80}\n[Peer]", "x" * 63),
    ],
)
def test_comment_names_a_peer(comments, name):
    conf = Conf.parse(text(f"[Interface]\nMTU = 1420\n{comments}\nPublicKey = {{public_a}}\n"), "x.conf")

    assert conf.others[0].name == name
