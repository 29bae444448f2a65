from __future__ import annotations

from types import SimpleNamespace

import pytest

from overlay.balancing.on_lan import look_at_lan
from tests.overlay.balancing.test_balancing import WEB, node

VRRP = WEB.replace("slow_start = 60", 'vrrp = { router = 51, interface = "eth0" }')


class Lan:
    """Notes what it is told."""

    def set_links(self, links):
        self.links = links

    def configure(self, memberships):
        self.memberships = list(memberships)

    def hold(self, addresses):
        self.held = [str(address) for address in addresses]

    def set_quorums(self, lost):
        self.lost = list(lost)

    def set_overlay(self, *, is_up):
        self.is_up = is_up


def looked(text=WEB, *, is_active=True, has_quorum=True, **remote):
    service = node(text).table.services["web"]
    lan, healths = Lan(), {"web": SimpleNamespace(service=service, has_quorum=has_quorum)}
    directors = SimpleNamespace(is_active=lambda group: is_active and group == ("lb",))
    remotes = [SimpleNamespace(**{"is_confirmed": True, "is_silent": False} | remote)]
    look_at_lan(lan, ["eth0"], healths, directors, "lb", remotes)
    return lan


def test_the_active_director_has_the_addresses_and_others_have_none():
    assert looked().held == ["203.0.113.80"]
    assert looked(is_active=False).held == []


def test_where_vrrp_decides_the_overlay_does_not():
    lan = looked(VRRP)
    assert lan.held == []
    assert len(lan.memberships) == 1


def test_what_vrrp_tracks_is_told():
    assert looked(has_quorum=False).lost == ["web"]
    assert looked().lost == []
    assert looked().is_up


@pytest.mark.parametrize("remote", [{"is_confirmed": False}, {"is_silent": True}], ids=str)
def test_overlay_is_up_where_somebody_is_heard(remote):
    assert not looked(**remote).is_up
