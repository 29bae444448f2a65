"""What groups of VRRP contradict: each other, and the services that name them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peers.errors import KeyProblem, format_keys

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peers.errors import Keys
    from peers.service import Service, Vrrp


def check_groups(services: Mapping[str, Service]) -> None:
    """Refuse groups of *services* that contradict each other or their services.  Raises KeyProblem."""
    first: dict[str, Service] = {}  # by the name of the group
    families: dict[str, set[int]] = {}
    for service in services.values():
        group = service.vrrp
        if group is None:
            continue
        _check_directors(service, group, first.setdefault(group.name, service))
        families.setdefault(group.name, set()).update(address.version for address in service.addresses)
        if group.version == 2 and 6 in families[group.name]:
            raise KeyProblem(
                (*place_of(group), "version"),
                f"2 has no IPv6, and {_named(service)} has it; write version = 3",
            )
        _check_tracked(services, group)
    _check_routers(first, families)


def place_of(group: Vrrp) -> Keys:
    """Return where *group* is in the file."""
    at_service, slash, name = group.name.partition("/")
    return (at_service, name, "vrrp") if slash else ("vrrp", group.name)


def _check_directors(service: Service, group: Vrrp, first: Service) -> None:
    place = place_of(group)
    if service.directors is None:
        raise KeyProblem(
            ("services", service.name, "vrrp"),
            'is for directors on a LAN, and every node is one; name them, such as directors = ["lb1", "lb2"], '
            "or remove it",
        )
    if set(service.directors) != set(first.directors or ()):
        raise KeyProblem(
            ("services", service.name, "vrrp"),
            f"{group.name} is also that of {_named(first)}, which has other directors; write the same ones, "
            "or another group",
        )
    for key, written in (("interface", group.interfaces), ("priority", group.priorities)):
        for name in written:
            if name not in service.directors:
                raise KeyProblem(
                    (*place, key, name),
                    f"is for a director, and {name} is not one of {_named(service)}; remove it",
                )
    for name in service.directors:
        if group.interface_of(name) is None:
            raise KeyProblem(
                (*place, "interface"), f"has none for {name}; write the one that it has on the LAN"
            )


def _check_tracked(services: Mapping[str, Service], group: Vrrp) -> None:
    place = place_of(group)
    for name in group.track_services:
        if name not in services:
            raise KeyProblem(
                (*place, "track_services"), f"has {name}, which is not a service; write one of [services]"
            )
    if group.track_weight and not (group.track_interfaces or group.track_overlay or group.track_services):
        raise KeyProblem((*place, "track_weight"), "has no effect, because nothing is tracked; remove it")
    if group.preempt_delay and not group.preempt:
        raise KeyProblem((*place, "preempt_delay"), "has no effect with preempt = false; remove one of them")


def _check_routers(first: Mapping[str, Service], families: Mapping[str, set[int]]) -> None:
    """Refuse two groups of one identifier on one interface: each would take the other's advertisements for its own."""
    holders: dict[tuple[str, str, int, int], Vrrp] = {}
    for name, service in first.items():
        group = service.vrrp
        assert group is not None
        for director in service.directors or ():
            interface = group.interface_of(director)
            assert interface is not None
            for family in sorted(families[name]):
                holder = holders.setdefault((director, interface, family, group.router), group)
                if holder is not group:
                    raise KeyProblem(
                        (*place_of(group), "router"),
                        f"{group.router} is also that of {format_keys(place_of(holder))} on {interface} of "
                        f"peers.{director}; write another, or share one [vrrp.NAME]",
                    )


def _named(service: Service) -> str:
    return format_keys(("services", service.name))
