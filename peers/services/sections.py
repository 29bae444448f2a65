"""[services.NAME], [checks.NAME] and [vrrp.NAME] as kinds of sections of a peers file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peers.kind import Kind
from peers.services.conflicts import check_services
from peers.services.keys import EVERY_CHECK, SERVICE, VRRP
from peers.services.reading import read_check, read_service, read_vrrp

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peers.kind import Sections
    from peers.peer import Network, Peer
    from peers.service import Service


def services_of(sections: Sections) -> dict[str, Service]:
    """Return the services of *sections* by their names, with what they name.  Raises KeyProblem for what is not there."""
    drafts = SERVICES.of(sections)
    checks, vrrps = (CHECKS.of(sections), VRRPS.of(sections)) if drafts else ({}, {})
    return {name: draft.finish(checks, vrrps) for name, draft in drafts.items()}


def _check(network: Network, peers: Mapping[str, Peer], sections: Sections) -> None:
    check_services(network, peers, services_of(sections))


SERVICES = Kind("services", SERVICE, read_service, _check)
CHECKS = Kind("checks", EVERY_CHECK, read_check)
VRRPS = Kind("vrrp", VRRP, read_vrrp)
