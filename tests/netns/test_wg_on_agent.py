"""Debian's `wg` on an agent of a peers file."""

from __future__ import annotations

import shutil

import pytest

from tests.netns.network import PATIENCE, PORT, Network, is_silent
from tests.netns.topology import wait_until
from tests.netns.wg_device import new_name

pytestmark = pytest.mark.skipif(
    not (shutil.which("wireguard-go") and shutil.which("wg")), reason="needs wireguard-go and wg"
)


def test_peer_goes_and_comes_by_wg_until_the_peers_file_changes_it(module_lab, tmp_path):
    network = Network(module_lab, tmp_path)
    ours, theirs = network.host("ours", interface=new_name()), network.wireguard("theirs")
    theirs.start()
    theirs.meet(ours)
    ours.start()
    ours.wait_up(theirs)
    prefixes = ",".join(theirs.settings["subnets"])

    def wg(*arguments):
        return ours.namespace.run("wg", *arguments)

    shown = wg("show", ours.interface, "allowed-ips").split()
    assert shown[0] == theirs.public_key
    assert set(prefixes.split(",")) <= set(shown[1:])
    saved = wg("showconf", ours.interface)

    wg("set", ours.interface, "peer", theirs.public_key, "remove")
    assert is_silent(ours.namespace, theirs.address)
    assert any("wg removed theirs" in note for note in ours.status()["notes"])
    wg(
        *("set", ours.interface, "peer", theirs.public_key, "allowed-ips", prefixes),
        *("endpoint", f"{theirs.outside}:{PORT}"),
    )
    ours.ping(theirs.address)
    assert not any("wg removed" in note for note in ours.status()["notes"])  # it is as in the file again

    path = tmp_path / "saved.conf"
    path.touch(mode=0o600)
    path.write_text(saved)
    for verb in ("syncconf", "setconf", "addconf"):
        wg(verb, ours.interface, str(path))
        ours.ping(theirs.address)
    assert wg("showconf", ours.interface) == saved

    wg("set", ours.interface, "peer", theirs.public_key, "persistent-keepalive", "7")
    assert any("wg changed theirs" in note for note in ours.status()["notes"])
    theirs.settings["keepalive"] = 5
    ours.reload()
    wait_until(lambda: wg("show", ours.interface, "persistent-keepalive").split()[-1] == "5", PATIENCE, "a reload")  # fmt: skip
    assert not any("wg changed" in note for note in ours.status()["notes"])
    network.close()
