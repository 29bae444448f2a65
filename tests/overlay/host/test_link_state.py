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


def test_ports_of_a_bridge_are_below_it(lab):
    host = lab.namespace("host")
    host.ip("link add veth0 type veth peer name veth1", "link add br0 type bridge")
    host.ip("link set veth0 master br0")

    with host.entered():
        assert below("br0") == {"veth0"}
        assert below("overlay-none") == set()
