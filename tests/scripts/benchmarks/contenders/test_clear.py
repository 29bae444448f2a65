from pathlib import Path

import pytest

import peers.toml
from overlay.encap import ENCAPSULATIONS
from scripts.benchmarks.contenders import clear


@pytest.mark.parametrize("name", clear.ENCAPSULATIONS)
def test_both_hosts_have_no_key_and_speak_in_the_clear(name):
    table = peers.toml.parse(clear.PEERS_TOML.format(encapsulation=name), Path("peers.toml"))
    a, b = table.peers.values()

    assert (a.public_key, b.public_key) == (None, None)
    assert table.encapsulation_between(a, b) == name
    assert not ENCAPSULATIONS[name].is_encrypted
