from pathlib import Path
from types import SimpleNamespace

import pytest

import peers.toml
from scripts.benchmarks.contenders import tap


@pytest.mark.parametrize("encapsulation", tap.CARRIED_BY.values())
def test_both_hosts_have_a_tap_with_an_address(encapsulation):
    a, b = (
        SimpleNamespace(
            public_key=key + 42 * "A" + "=",
            underlay_address=f"192.0.2.{number}",
            address=tap.ADDRESS.format(number=number),
        )
        for number, key in ((1, "B"), (2, "C"))
    )
    text = tap.PEERS_TOML.format(encapsulation=encapsulation, a=a, b=b)

    table = peers.toml.parse(text, Path("peers.toml"))

    assert table.network.device == "tap"
    assert table.encapsulation_between(*table.peers.values()) == encapsulation
    assert [str(*each.addresses) for each in table.peers.values()] == ["10.245.0.1", "10.245.0.2"]
