from __future__ import annotations

import pytest

from overlay.host.link_state import LinkState, below

pytestmark = pytest.mark.netns


def test_loopback_is_up_and_cuts_trains():
    state = LinkState()

    assert state.is_up("lo")
    assert state.offloads("lo")["tso"]
    assert "gro" not in state.offloads("lo")  # it has no hardware


def test_interface_that_is_not_there_is_down_and_tells_nothing():
    assert not LinkState().is_up("overlay-none")
    assert LinkState().offloads("overlay-none") == {}


def test_what_is_switched_off_is_told(lab):
    host = lab.namespace("host")
    host.ip("link add veth0 type veth peer name veth1")
    host.run("ethtool", "-K", "veth0", "gso", "off")

    with host.entered():
        assert not LinkState().is_up("veth0")
        assert LinkState().offloads("veth0")["gso"] is False


def test_what_an_interface_is_made_of_is_below_it(tmp_path):
    for each in (
        "br0/lower_vlan7",
        "br0/lower_veth0",
        "vlan7/lower_bond0",
        "bond0/lower_eth0",
        "eth0/upper_bond0",
    ):
        (tmp_path / each).mkdir(parents=True)

    assert below("br0", tmp_path) == {"vlan7", "veth0", "bond0", "eth0"}
    assert below("overlay-none", tmp_path) == set()
