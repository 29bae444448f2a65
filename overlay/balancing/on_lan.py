"""The role of a director on the links of its host: which virtual addresses belong there, and what VRRP tracks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.lan.memberships import memberships_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from overlay.host.netlink.fib import Link
    from overlay.lan.lan import Lan
    from overlay.roster import Remote
    from overlay.services.directors import Directors
    from overlay.services.health import Health


def look_at_lan(
    lan: Lan,
    links: Sequence[Link],
    healths: Mapping[str, Health],
    directors: Directors,
    own: str,
    remotes: Iterable[Remote],
) -> None:
    """Set up *lan* as the services of *healths* now require of the node *own* on *links*."""
    services = [health.service for health in healths.values()]
    lan.set_links(links)
    lan.configure(memberships_of(services, own))
    by_vrrp = {address for each in services if each.vrrp is not None for address in each.addresses}
    lan.hold(
        address
        for each in services
        if each.directors and directors.is_active(each.directors)
        for address in each.addresses
        if address not in by_vrrp
    )
    lan.set_quorums(name for name, health in healths.items() if not health.has_quorum)
    lan.set_overlay(is_up=any(each.is_confirmed and not each.is_silent for each in remotes))
