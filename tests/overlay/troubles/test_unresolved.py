from __future__ import annotations

import pytest

from overlay.roster import Remote
from overlay.troubles.unresolved import describe, is_nowhere, why_lost
from peers.peer import Endpoint
from tests.peers.examples import peer

ERROR = "tokyo.example.net was not resolved (Name or service not known)"
AT = ("192.0.2.2", 51820)
REMEDY = (
    "correct the name in the peers file, or see what `getent ahosts tokyo.example.net` finds on this host; "
    "it is looked up again every 10 s"
)


def remote(endpoint="tokyo.example.net", error=ERROR):
    configured = None if endpoint is None else Endpoint.parse(endpoint, 51820)
    return Remote(1, peer("tokyo"), None, configured=configured, resolve_error=error)


def test_peer_without_any_address_cannot_be_called():
    assert str(describe(remote(), None)) == f"tokyo cannot be reached, because its endpoint {ERROR}: {REMEDY}"
    assert is_nowhere(remote(), None)


def test_peer_with_an_address_of_before_is_said_to_be_called_there():
    assert str(describe(remote(), AT)) == (
        f"tokyo is still contacted at 192.0.2.2:51820, its last known address, because its endpoint {ERROR}: {REMEDY}"
    )
    assert not is_nowhere(remote(), AT)


@pytest.mark.parametrize("endpoint", [None, AT])
@pytest.mark.parametrize("of", [remote(error=None), remote(endpoint=None)])
def test_nothing_is_said_of_a_name_that_was_resolved_or_is_gone(of, endpoint):
    assert describe(of, endpoint) is None
    assert not is_nowhere(of, endpoint)


def test_of_an_address_on_an_interface_that_is_not_there_no_name_is_spoken():
    error = "fe80::1%eth9 is on an interface that this host does not have"

    assert str(describe(remote("fe80::1%eth9", error), None)) == (
        f"tokyo cannot be reached, because its endpoint {error}: correct it in the peers file, or add that interface; "
        "it is looked up again every 10 s"
    )


def test_peer_that_was_given_up_is_logged_with_the_error_of_its_name():
    assert why_lost(remote()) == f"it does not answer, and its endpoint {ERROR}"
    assert why_lost(remote(error=None)) == "it does not answer"
    assert why_lost(remote(endpoint=None)) == "it does not answer"
