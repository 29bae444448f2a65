"""The files exported for each peer are imported as the same table."""

from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.importing.places import Remarks
from overlay.wg_quick.conf import Conf
from overlay.wg_quick.exporting import CannotExportError, describe_losses, export
from overlay.wg_quick.importing import import_files
from peers.peer import preshared_key_file_for
from tests.overlay.wg_quick.files import preshared, private
from tests.peers.examples import peer, table

DIRECTORY = Path("/etc/overlay")


@st.composite
def tables(draw):
    """A table of everything that a wg-quick file can express."""
    families = draw(st.sampled_from([(4,), (6,), (4, 6)]))
    prefixes = tuple(ip_network({4: "10.244.0.0/16", 6: "fd00:244::/32"}[each]) for each in families)
    names = draw(st.lists(st.sampled_from(["paris", "tokyo", "oslo", "a.b", "x_1"]), min_size=2, unique=True))
    exit_name = draw(st.sampled_from([None, *names]))
    port = draw(st.sampled_from([51820, 4500]))
    shared = draw(st.sampled_from([None, *names]))
    made = []
    for number, name in enumerate(names, 1):
        addresses = [{4: f"10.244.0.{number}", 6: f"fd00:244::{number}"}[each] for each in families]
        subnets = [f"10.244.{number}.0/24"] * draw(st.booleans()) if 4 in families else []
        subnets += [f"192.168.{number}.0/24"] * draw(st.booleans())
        subnets += ["0.0.0.0/0", "::/0"] * (name == exit_name)
        own_port = draw(st.sampled_from([None, 4000]))
        endpoint = draw(
            st.sampled_from(
                [None, f"192.0.2.{number}", f"[2001:db8::{number}]", f"{name.replace('_', '-')}.example.net"]
            )
        )
        made.append(
            peer(
                name,
                *subnets,
                public_key=private(name).public,
                address=tuple(addresses),
                endpoint=None if endpoint is None else f"{endpoint}:{own_port or port}",
                listen_port=own_port,
                keepalive=draw(st.sampled_from([0, 25])),
                preshared_key_file=DIRECTORY / f"{name}.psk" if name == shared else None,
            )
        )
    return table(
        *made,
        prefixes=prefixes,
        port=port,
        mtu=draw(st.sampled_from([None, 1380])),
        fwmark=draw(st.sampled_from([None, 77])),
    )


def exported(known, name, **fields):
    own = known.peers[name]
    keys = {
        other.name: preshared(path.stem)
        for other in known.peers.values()
        if other is not own and (path := preshared_key_file_for(own, other)) is not None
    }
    return export(known, own, fields.get("private_key", private(name)), keys)


@given(tables())
def test_all_peers_exported_and_imported_are_the_same_table(known):
    files = [
        (f"{name}.conf", Conf.parse(exported(known, name).build(), f"{name}.conf")) for name in known.peers
    ]

    remarks = Remarks()
    imported = import_files(files, remarks, DIRECTORY)

    again = imported.table
    assert again.network.mtu == known.network.mtu
    assert again.network.fwmark == known.network.fwmark
    assert set(again.network.prefixes) == set(known.network.prefixes)
    assert list(again.peers) == list(known.peers)
    for name, one in known.peers.items():
        other = again.peers[name]
        assert set(again_subnets(other)) == set(again_subnets(one))
        assert (other.public_key, other.addresses, other.endpoint, other.keepalive) == (
            one.public_key,
            one.addresses,
            one.endpoint,
            one.keepalive,
        )
        if one.endpoint is not None or one.listen_port is not None:
            assert again.listen_port(other) == known.listen_port(one)
        for third in known.peers.values():
            if third is not one:
                path, now = (
                    preshared_key_file_for(one, third),
                    preshared_key_file_for(other, again.peers[third.name]),
                )
                assert (path is None) == (now is None)
                assert now is None or imported.preshared_keys[now.name] == preshared(path.stem)
    assert remarks.all() == ()
    assert imported.private_keys == {name: private(name) for name in known.peers}


def again_subnets(peer):
    own = {f"{address}/{address.max_prefixlen}" for address in peer.addresses}
    return [str(subnet) for subnet in peer.subnets if str(subnet) not in own]


@given(tables())
def test_file_is_read_back_as_what_was_written(known):
    for name in known.peers:
        conf = exported(known, name)

        assert Conf.parse(conf.build(), "x.conf") == conf


def test_file_without_the_private_key_has_no_line_for_it():
    known = table(peer("a", address=("10.244.0.1",)), peer("b", address=("10.244.0.2",)))

    assert "PrivateKey" not in exported(known, "a", private_key=None).build()


def test_tunnels_that_are_not_by_wireguard_are_refused_or_named():
    known = table(
        peer("a", address=("10.244.0.1",), endpoint="192.0.2.1"),
        peer("b", address=("10.244.0.2",), endpoint="192.0.2.2:8285", encapsulation="udp"),
        peer("c", address=("10.244.0.3",), endpoint="192.0.2.3"),
    )

    with pytest.raises(CannotExportError, match=r"packets of b travel in udp, not in WireGuard"):
        exported(known, "b")
    assert [other.name for other in exported(known, "a").others] == ["c"]
    assert list(describe_losses(known, known.peers["a"])) == [
        "b: left out, because packets between them and a do not travel in WireGuard"
    ]


def test_tap_has_no_file():
    known = table(peer("a", address=("10.244.0.1",)), peer("b", address=("10.244.0.2",)), device="tap")

    with pytest.raises(CannotExportError, match=r"WireGuard does not carry Ethernet frames"):
        exported(known, "a")


def test_address_outside_the_network_stands_alone():
    known = table(peer("a", address=("172.16.0.1",)), peer("b", address=("10.244.0.2",)))

    assert [str(each) for each in exported(known, "a").host.addresses] == ["172.16.0.1/32"]
    assert ip_address("10.244.0.2") in exported(known, "b").host.addresses[0].network
