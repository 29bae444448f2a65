"""A node whose private key `wg` has removed."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from overlay.amending import amend
from overlay.diagnosis.kinds import KINDS, Severity
from overlay.starting.bare import BareStore
from overlay.troubles.unkeyed import describe
from overlay.uapi.language import DeviceChange, PeerChange
from tests.overlay.test_amending import node_of
from tests.overlay.uapi.test_amendments import OWN, file

OPTIONS = SimpleNamespace(interface="ov1", key=Path("/etc/my keys/e.key"))
TAKEN = DeviceChange(takes_key=True)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (TAKEN, "its 3 tunnels are down"),
        (DeviceChange(takes_key=True, replaces_peers=True), "it has no tunnel"),
    ],
)
def test_finding_on_a_removed_key_has_the_command_that_gives_it_back(change, what):
    found = describe(amend(node_of(file()), change), OPTIONS)

    assert str(found) == (
        "wg removed the private key of this node, as `wg setconf` with a file without PrivateKey does, so "
        f"{what}: restore it with `wg set ov1 private-key '/etc/my keys/e.key'`"
        f"{', and the peers that wg removed by restarting the agent' if change.replaces_peers else ''}"
    )
    assert KINDS[found.name].severity is Severity.ERROR


def test_node_with_a_key_has_no_finding():
    node = node_of(file())

    assert describe(node, OPTIONS) is None
    assert describe(amend(amend(node, TAKEN), DeviceChange(takes_key=True, private_key=OWN)), OPTIONS) is None


def test_bare_node_that_waits_for_its_first_key_has_no_finding():
    assert describe(BareStore("wg0").first_node(), OPTIONS) is None


def test_bare_node_with_peers_and_without_a_key_has_a_finding():
    peer = PeerChange(public_key=bytes(31) + b"\x01")
    node = amend(BareStore("wg0").first_node(), DeviceChange(peers=(peer,)))

    assert str(describe(node, OPTIONS)) == (
        "ov1 has no private key, so its tunnels are down: set it with `wg set ov1 private-key FILE`"
    )
    assert describe(amend(node, DeviceChange(takes_key=True, private_key=OWN)), OPTIONS) is None
