"""[services.NAME], [checks.NAME] and [vrrp.NAME] as kinds of sections of a peers file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peers.kind import Kind
from peers.services.checks import read_check
from peers.services.conflicts import check_services
from peers.services.hints import warn_of_services, warn_of_unused
from peers.services.keys import EVERY_CHECK, SERVICE, VRRP
from peers.services.reading import read_service
from peers.services.vrrp import read_vrrp

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peers.kind import Sections
    from peers.peer import Network, Peer
    from peers.service import Service


def services_of(sections: Sections) -> dict[str, Service]:
    """Return the services of *sections* by their names, with what they name.
    Raises KeyProblem for what is not there.
    """
    drafts = SERVICES.of(sections)
    checks, vrrps = (CHECKS.of(sections), VRRPS.of(sections)) if drafts else ({}, {})
    return {name: draft.finish(checks, vrrps) for name, draft in drafts.items()}


def _check(network: Network, peers: Mapping[str, Peer], sections: Sections) -> None:
    check_services(network, peers, services_of(sections))


def _warn(network: Network, peers: Mapping[str, Peer], sections: Sections) -> list[str]:
    return warn_of_services(network, peers, services_of(sections).values())


def _warn_of_checks(_network: Network, _peers: Mapping[str, Peer], sections: Sections) -> list[str]:
    services = services_of(sections).values()
    used = {check for each in services for entry in each.entries for check in each.checks_of(entry)}
    used.update(check for each in services for check in each.checks)
    return warn_of_unused("checks", CHECKS.of(sections), {check.name for check in used})


def _warn_of_vrrps(_network: Network, _peers: Mapping[str, Peer], sections: Sections) -> list[str]:
    used = {each.vrrp.name for each in services_of(sections).values() if each.vrrp is not None}
    return warn_of_unused("vrrp", VRRPS.of(sections), used)


SERVICES = Kind("services", SERVICE, read_service, _check, _warn)
CHECKS = Kind("checks", EVERY_CHECK, read_check, warn=_warn_of_checks)
VRRPS = Kind("vrrp", VRRP, read_vrrp, warn=_warn_of_vrrps)
