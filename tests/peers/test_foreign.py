"""Files of other programs in place of the peers file."""

from __future__ import annotations

from pathlib import Path

import pytest

from peers.errors import TableError
from peers.foreign import recognize
from peers.toml import parse
from tests.peers.examples import key_text, peer, render, table

# As wg-quick(8) has it
WG_QUICK = f"""\
[Interface]
Address = 10.200.100.8/24
DNS = 10.200.100.1
PrivateKey = {key_text("a")}

[Peer]
PublicKey = {key_text("b")}
Endpoint = demo.wireguard.com:51820
"""


@pytest.mark.parametrize(
    "text", [WG_QUICK, WG_QUICK.replace("\n", "\r\n"), "\ufeff" + WG_QUICK, "[interface]\n", "# x\n[Peer]"]
)
def test_wg_quick_file_gets_a_sentence_that_says_so(text):
    with pytest.raises(
        TableError, match=r"peers.toml: this is a configuration of wg or wg-quick, not a peers file"
    ):
        parse(text, Path("peers.toml"))


def test_key_file_gets_a_sentence_that_says_so_and_does_not_quote_it():
    with pytest.raises(TableError, match="this is a key, not a peers file") as raised:
        parse(f"{key_text('a')}\n", Path("peers.toml"))

    assert key_text("a") not in str(raised.value)


def test_peers_file_is_none_of_them_even_with_a_peer_of_that_name():
    assert recognize(render(table(peer("Interface", "10.244.1.0/24"), peer("Peer", "10.244.2.0/24")))) is None
