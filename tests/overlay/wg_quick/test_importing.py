"""A peers file is made from wg-quick files: it is accepted, and what it cannot express is named."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.importing.places import UnreadableError
from tests.overlay.wg_quick.files import imported, preshared, private, public

LAPTOP = """
    [Interface]
    PrivateKey = {private_laptop}
    Address = 10.0.0.2/24

    [Peer]
    PublicKey = {public_server}
    AllowedIPs = 0.0.0.0/0
    Endpoint = vpn.example.net:4500
    PersistentKeepalive = 25
"""


def test_file_of_one_host_is_its_view():
    result, remarks = imported(laptop=LAPTOP)

    assert result.text == (
        "# Made of laptop.conf by overlay import\n\n"
        '[network]\nprefix = ["10.0.0.0/24"]\n\n'
        f'[peers.laptop]\npublic_key = "{public("laptop")}"\naddress = ["10.0.0.2"]\n\n'
        f'[peers."vpn.example.net"]\npublic_key = "{public("server")}"\nendpoint = "vpn.example.net:4500"\n'
        'listen_port = 4500\naddress = ["10.0.0.1"]\nsubnets = ["0.0.0.0/0"]\nkeepalive = 25\n'
    )
    assert [remark.partition("; ")[0] for remark in remarks] == [
        "laptop.conf:5: vpn.example.net: its own address is not in any file, and a peer needs one: 10.0.0.1 was chosen"
    ]
    assert result.private_keys == {"laptop": private("laptop")}


def test_hosts_of_several_files_are_joined_by_their_keys():
    result, remarks = imported(
        paris="""
            [Interface]
            PrivateKey = {private_paris}
            Address = 10.244.0.1/16
            ListenPort = 51820
            [Peer]
            PublicKey = {public_tokyo}
            PresharedKey = {psk_both}
            AllowedIPs = 10.244.0.2/32, 192.168.2.0/24
            Endpoint = 192.0.2.20:51820
        """,
        tokyo="""
            [Interface]
            PrivateKey = {private_tokyo}
            Address = 10.244.0.2/16
            ListenPort = 51820
            [Peer]
            PublicKey = {public_paris}
            PresharedKey = {psk_both}
            AllowedIPs = 10.244.0.1/32, 192.168.1.0/24
            Endpoint = 192.0.2.10:51820
        """,
    )

    peers = result.table.peers
    assert remarks == []
    assert {name: [str(each) for each in peer.subnets] for name, peer in peers.items()} == {
        "paris": ["192.168.1.0/24"],
        "tokyo": ["192.168.2.0/24"],
    }
    assert [str(peer.endpoint) for peer in peers.values()] == ["192.0.2.10:51820", "192.0.2.20:51820"]
    assert result.preshared_keys == {"tokyo.psk": preshared("both")}
    assert public("paris") in result.text
    assert private("paris").to_base64() not in result.text


def test_spokes_that_reach_each_other_through_a_hub_are_named():
    spoke = """
        [Interface]
        PrivateKey = {{private_{0}}}
        Address = 10.0.0.{1}/24
        [Peer]
        PublicKey = {{public_hub}}
        AllowedIPs = 10.0.0.0/24
        Endpoint = 192.0.2.1:51820
    """
    hub = """
        [Interface]
        PrivateKey = {private_hub}
        Address = 10.0.0.1/24
        ListenPort = 51820
        [Peer]
        PublicKey = {public_a}
        AllowedIPs = 10.0.0.2/32
        [Peer]
        PublicKey = {public_b}
        AllowedIPs = 10.0.0.3/32
    """

    _, remarks = imported(hub=hub, a=spoke.format("a", 2), b=spoke.format("b", 3))

    assert [remark.partition(";")[0] for remark in remarks] == [
        "a.conf:1: [Interface]: this file leads to b through another peer, if at all",
        "b.conf:1: [Interface]: this file leads to a through another peer, if at all",
    ]


def test_what_has_no_counterpart_is_named_with_file_and_line_and_what_does_instead():
    _, remarks = imported(
        wg0="""
            [Interface]
            PrivateKey = {private_a}
            Address = 10.0.0.1/24
            DNS = 10.0.0.1
            Table = off
            SaveConfig = true
            PostUp = iptables -t nat -A POSTROUTING -j MASQUERADE
            PreUp = /root/secret --password hunter2
            MTU = 500
            [Peer]
            PublicKey = {public_b}
            AllowedIPs = 10.0.0.2/32
        """
    )

    assert [remark.partition("; ")[0] for remark in remarks] == [
        "wg0.conf:1: MTU: 500 is less than 576, the minimum in a peers file",
        "wg0.conf:4: DNS: the agent does not change the resolver",
        "wg0.conf:5: Table: the agent makes the routes of peers itself, in tables of its own",
        "wg0.conf:6: SaveConfig: the peers file is not written back",
        "wg0.conf:7: PostUp: no command is carried over",
        "wg0.conf:8: PreUp: no command is carried over",
    ]
    assert "hunter2" not in "".join(remarks)


def test_settings_that_are_as_here_are_not_named():
    _, remarks = imported(
        wg0="""
            [Interface]
            PrivateKey = {private_a}
            Address = 10.0.0.1/24
            Table = auto
            SaveConfig = false
            MTU = 1400
            FwMark = 0x10
            [Peer]
            PublicKey = {public_b}
            AllowedIPs = 10.0.0.2/32
        """
    )

    assert remarks == []


TWO = """
    [Interface]
    PrivateKey = {{private_{0}}}
    Address = 10.0.0.{1}/24
    {2}
    [Peer]
    PublicKey = {{public_{3}}}
    AllowedIPs = {4}
    {5}
"""


@pytest.mark.parametrize(
    ("a", "b", "remark"),
    [
        (
            ("MTU = 1300", "10.0.0.2/32", ""),
            ("MTU = 1400", "10.0.0.1/32", ""),
            "b.conf:1: MTU: is 1400 here, and 1300 for all hosts in this peers file; to keep it, import this file alone",
        ),
        (
            ("MTU = 500", "10.0.0.2/32", ""),
            ("MTU = 1400", "10.0.0.1/32", ""),
            "a.conf:1: MTU: 500 is less than 576, the minimum in a peers file; for all hosts it is 1400",
        ),
        (
            ("MTU = 1000", "10.0.0.2/32, fd00::/64", ""),
            ("MTU = 1400", "10.0.0.1/32", ""),
            "a.conf:1: MTU: 1000 is less than 1280, the minimum in a peers file with IPv6; for all hosts it is 1400",
        ),
        (
            ("FwMark = off", "10.0.0.2/32", ""),
            ("FwMark = 7", "10.0.0.1/32", ""),
            "a.conf:1: FwMark: is not set here, and 7 for all hosts in this peers file; to keep it, import this file alone",
        ),
        (
            ("", "10.0.0.2/32, 10.9.0.0/16", ""),
            ("", "10.0.0.1/32, 10.9.0.0/16", ""),
            "a.conf:5: AllowedIPs 10.9.0.0/16: already leads to a (a.conf:1), and a prefix leads to one peer; left out",
        ),
        (
            ("", "10.0.0.2/32", "PresharedKey = {psk_x}"),
            ("", "10.0.0.1/32", "PresharedKey = {psk_y}"),
            "a.conf:5: PresharedKey: of a with b differs in the file of the other (b.conf:5)",
        ),
    ],
)
def test_contradictions_are_named(a, b, remark):
    _, remarks = imported(
        a=TWO.format("a", 1, a[0], "b", a[1], a[2]), b=TWO.format("b", 2, b[0], "a", b[1], b[2])
    )

    assert remarks == [remark]


def test_each_keepalive_and_endpoint_that_a_peers_file_cannot_keep_is_named():
    spoke = """
        [Interface]
        PrivateKey = {{private_{0}}}
        Address = 10.0.0.{1}/24
        [Peer]
        PublicKey = {{public_hub}}
        AllowedIPs = 10.0.0.0/24
        Endpoint = {2}
        PersistentKeepalive = {3}
    """

    result, remarks = imported(
        a=spoke.format("a", 2, "192.0.2.1:51820", 25),
        b=spoke.format("b", 3, "192.0.2.1:51820", "off"),
        c=spoke.format("c", 4, "198.51.100.1:51820", 60),
    )

    keep = "for all hosts in this peers file; to keep it, import this file alone"
    assert [each.keepalive for each in result.table.peers.values()] == [0, 0, 0, 25]
    assert sorted(each for each in remarks if "Endpoint" in each or "Keepalive" in each) == [
        f"b.conf:4: PersistentKeepalive: is off here, and 25 {keep}",
        f"c.conf:4: Endpoint 198.51.100.1:51820: differs from other files, and 192.0.2.1:51820 {keep}",
        f"c.conf:4: PersistentKeepalive: is 60 here, and 25 {keep}",
    ]


def test_pairwise_keys_that_a_peers_file_cannot_have_are_named():
    pair = "[Peer]\nPublicKey = {{public_{0}}}\nAllowedIPs = 10.0.0.{1}/32\nPresharedKey = {{psk_{2}}}\n"
    numbers = {"a": 1, "b": 2, "c": 3}
    full = {
        name: f"[Interface]\nPrivateKey = {{private_{name}}}\nAddress = 10.0.0.{number}/24\n"
        + "".join(
            pair.format(other, there, "".join(sorted(name + other)))
            for other, there in numbers.items()
            if other != name
        )
        for name, number in numbers.items()
    }

    _, remarks = imported(**full)

    assert any("does not fit into a peers file" in remark for remark in remarks)


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        (
            {"a": "[Interface]\nAddress = 10.0.0.1/24\n"},
            "a.conf:1: has no PrivateKey, which shows whose file this is; write it, even if PostUp sets it",
        ),
        (
            {"a": LAPTOP, "b": LAPTOP},
            "b.conf:1: is the same host as a.conf: both have the same PrivateKey; import one of them",
        ),
        (
            {
                "a": TWO.format("a", 1, "", "c", "10.0.0.3/32", ""),
                "b": TWO.format("b", 1, "", "c", "10.0.0.3/32", ""),
            },
            "b.conf:1: 10.0.0.1 is also the address of a (a.conf:1); correct one of them",
        ),
    ],
)
def test_files_that_make_no_network_are_one_sentence(files, sentence):
    with pytest.raises(UnreadableError) as caught:
        imported(**files)

    assert str(caught.value) == sentence


def test_names_are_told_by_files_directories_comments_and_addresses_and_are_unique():
    result, _ = imported(
        **{
            "hosts/paris/wg0": """
                [Interface]
                PrivateKey = {private_a}
                Address = 10.0.0.1/24
                # home
                [Peer]
                PublicKey = {public_b}
                AllowedIPs = 10.0.0.2/32
                # Home
                [Peer]
                PublicKey = {public_c}
                AllowedIPs = 10.0.0.3/32

                [Peer]
                PublicKey = {public_d}
                AllowedIPs = 10.0.0.4/32
            """
        }
    )

    assert list(result.table.peers) == ["paris", "home", "Home-2", "peer-10.0.0.4"]


ANYTHING = st.lists(
    st.sampled_from(
        [
            "Address = 10.0.0.1/24", "Address = 10.0.0.2", "Address = 10.0.0.0/8, fd00::1/64", "MTU = 600", "ListenPort = 1",
            "FwMark = 9", "[Peer]\nPublicKey = {public_a}", "[Peer]\nPublicKey = {public_b}", "[Peer]\nPublicKey = {public_c}",
            "AllowedIPs = 10.0.0.2/32", "AllowedIPs = 10.0.0.1/24", "AllowedIPs = 0.0.0.0/0", "AllowedIPs = ::/0, 10.0.0.1/32",
            "AllowedIPs = fe80::/10, 224.0.0.0/4, 255.255.255.255/32, ff02::1/128", "Endpoint = 10.0.0.2:51820",
            "Endpoint = [fd00::1]:9", "PersistentKeepalive = 25", "PresharedKey = {psk_x}", "PresharedKey = {psk_y}", "# Name = a",
        ]
    ),
    max_size=12,
).map("\n".join)  # fmt: skip


@given(ANYTHING, ANYTHING)
def test_whatever_is_read_is_a_peers_file_or_one_sentence(one, another):
    """imported() has parsed it: a refusal would be an exception of another class."""
    head = "[Interface]\nPrivateKey = {private_%s}\n"

    with contextlib.suppress(UnreadableError):
        imported(a=head % "a" + one, b=head % "b" + another)


@pytest.mark.slow
def test_thousands_of_peers_of_one_name_are_numbered():
    head = "[Interface]\n# Name = hub\nPrivateKey = {private_a}\nAddress = 10.0.0.1/8\n"
    peers = [
        f"# Name = phone\n[Peer]\nPublicKey = {{public_{number}}}\nAllowedIPs = 10.1.{number // 250}.{number % 250}/32\n"
        for number in range(3000)
    ]

    result, remarks = imported(
        wg0=head + "".join(peers) + "# Name = phone-7\n[Peer]\nPublicKey = {public_x}\nAllowedIPs = 10.2.0.1"
    )

    names = list(result.table.peers)
    assert names[:4] == ["hub", "phone", "phone-2", "phone-3"]
    assert names[-2:] == ["phone-3000", "phone-7-2"]
    assert remarks == []


@pytest.mark.slow
def test_ten_thousands_of_prefixes_of_one_peer_are_imported_in_their_order():
    prefixes = [f"10.{number >> 8}.{number & 255}.0/24" for number in range(20_000)]
    head = "[Interface]\nPrivateKey = {private_a}\nAddress = 172.16.0.1/24\n"

    result, remarks = imported(
        wg0=head
        + "[Peer]\nPublicKey = {public_b}\nAllowedIPs = 172.16.0.2/32\n"
        + "".join(f"AllowedIPs = {', '.join(prefixes[at : at + 1000])}\n" for at in range(0, 20_000, 1000))
    )

    peer = list(result.table.peers.values())[1]
    assert list(map(str, peer.subnets)) == prefixes
    assert remarks == []


def test_host_whose_address_nothing_tells_is_named_by_its_line():
    with pytest.raises(UnreadableError, match=r":1: has no Address, and no other file has one"):
        imported(wg0="[Interface]\nPrivateKey = {private_a}\n")
