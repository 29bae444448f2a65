from __future__ import annotations

import pytest

from overlay.encap import ENCAPSULATIONS
from overlay.encap.carrier import carried_by, identified_by
from overlay.encap.encapsulation import Ends


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("wireguard", "UDP"),
        ("udp", "UDP"),
        ("vxlan", "UDP"),
        ("gre", "IP protocol 47"),
        ("ipip", "IP protocol 4 (for IPv4) or 41 (for IPv6)"),
    ],
)
def test_what_has_to_pass_is_named_as_firewalls_name_it(name, words):
    assert carried_by(ENCAPSULATIONS[name]) == words


@pytest.mark.parametrize(
    ("name", "identifier", "words"),
    [
        ("wireguard", None, None),
        ("udp", None, None),
        ("ipip", None, None),
        ("gre", 7, "the GRE key 7"),
        ("gre", 0, "the GRE key 0"),
        ("gre", None, "no GRE key"),
        ("vxlan", 42, "the VNI 42"),
    ],
)
def test_number_that_both_ends_share_is_named(name, identifier, words):
    assert identified_by(ENCAPSULATIONS[name], Ends(identifier)) == words
