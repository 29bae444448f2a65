from __future__ import annotations

from pathlib import Path

from overlay.keys.preshared import NAMED, describe_change, how_to_compare
from tests.peers.examples import peer

FILE = Path("/etc/overlay/peers.toml")


def test_file_and_section_are_named_with_a_hash_to_compare():
    tokyo = peer("tokyo", preshared_key_file=Path("/etc/overlay/my keys/tokyo.psk"))

    assert how_to_compare(peer("paris"), tokyo, FILE) == (
        "compare the preshared_key_file of peers.tokyo in /etc/overlay/peers.toml with that at tokyo, by `sha256sum "
        "'/etc/overlay/my keys/tokyo.psk'`; an agent reads a changed file when it gets SIGHUP"
    )


def test_of_two_files_that_of_the_first_name_is_the_one_in_use():
    paris = peer("paris", preshared_key_file=Path("/k/paris.psk"))
    tokyo = peer("tokyo", preshared_key_file=Path("/k/tokyo.psk"))

    for own, other in ((paris, tokyo), (tokyo, paris)):
        sentence = how_to_compare(own, other, FILE)

        assert f"the preshared_key_file of peers.paris in {FILE} with that at {other.name}" in sentence
        assert "`sha256sum /k/paris.psk`" in sentence


def test_where_none_is_named_the_other_end_may_have_one():
    assert how_to_compare(peer("paris"), peer("tokyo"), FILE) == (
        "/etc/overlay/peers.toml names no preshared_key_file for peers.paris or peers.tokyo, so see whether tokyo has "
        "a preshared key for this node"
    )


def test_change_is_one_line_however_many_peers_it_concerns():
    names = [f"peer{number}" for number in range(NAMED + 2)]

    assert describe_change(names[:1], 180.0) == (
        "preshared keys changed peers=peer0: the next handshake uses the new one, and begins at once; sessions keep "
        "their keys until then, 180 s at most"
    )
    assert "peers=peer0,peer1,peer2,peer3,peer4 and 2 more: " in describe_change(names, 180.0)
