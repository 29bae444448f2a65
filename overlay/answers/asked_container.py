"""The parts of a container runtime's request as typed values, and the answers if it cannot be met."""

from __future__ import annotations

import contextlib
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, TypeVar

from overlay.containers.addresses import AddressError, FullError, Holder
from overlay.errors import HostError
from overlay.host.attaching import StandsError
from overlay.host.netlink.container_namespace import ContainerNamespace
from overlay.provisioning.attaching import NoSubnetError
from overlay.questions import DESCRIPTORS, refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from overlay.containers.addresses import IPAddress, IPNetwork
    from overlay.questions import Answer, Request

T = TypeVar("T")

# Ours
MOST = 16  # addresses or routes that one container may ask for

# The kinds of refusals, for those who turn them into codes of CNI
INVALID, EXISTS, TRY_LATER, FAILED = "invalid", "exists", "try_later", "failed"


def holder_of(request: Mapping[str, object]) -> Holder:
    """Return the holder that *request* is about.  Raises ValueError."""
    return Holder.parse(request.get("network"), request.get("container"), request.get("interface"))


def addresses_of(request: Mapping[str, object]) -> tuple[IPAddress, ...]:
    """Return the requested addresses; empty if none are requested.  Raises ValueError."""
    return _each(request, "addresses", ip_address)


def networks_of(request: Mapping[str, object]) -> tuple[IPNetwork, ...] | None:
    """Return the networks to which routes are requested; None if the request has no routes.  Raises ValueError."""
    return None if request.get("routes") is None else _each(request, "routes", ip_network)


@contextlib.contextmanager
def opened(request: Request) -> Iterator[ContainerNamespace]:
    """Open the namespace that came with *request* until the end of the block.  Raises HostError if none did."""
    if len(request.descriptors) not in {DESCRIPTORS - 1, DESCRIPTORS}:
        raise HostError(
            "the request came without a network namespace: use the overlay-cni of the agent's version"
        )
    namespace, kernel, *settings = request.descriptors
    with contextlib.closing(ContainerNamespace(namespace, kernel, next(iter(settings), None))) as inside:
        yield inside


def refused(error: Exception) -> Answer:
    """Return the refusal for *error*, which is one of REFUSED."""
    match error:
        case NoSubnetError() | FullError():
            return refusal(str(error), TRY_LATER)
        case AddressError() | ValueError():
            return refusal(str(error), INVALID)
        case StandsError():
            return refusal(str(error), EXISTS)
    return refusal(str(error), FAILED)


REFUSED = (AddressError, HostError, ValueError)
"""The errors that a request about a container may end with, for refused()."""


def _each(request: Mapping[str, object], name: str, parse: Callable[[str], T]) -> tuple[T, ...]:
    found = request.get(name, [])
    if not isinstance(found, list) or len(found) > MOST or not all(isinstance(each, str) for each in found):
        raise ValueError(f"{name} must be a list of at most {MOST} strings")
    try:
        return tuple(map(parse, found))
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
