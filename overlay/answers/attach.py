"""An interface for a container, in the namespace that came with the request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.answers.asked_container import (
    REFUSED,
    addresses_of,
    holder_of,
    networks_of,
    opened,
    refused,
)
from overlay.host.attaching import InterfaceRequest
from overlay.wire.ip import IPV6_MINIMUM_MTU
from peers.mac import format_mac, parse_mac

if TYPE_CHECKING:
    from overlay.answers.running import Running
    from overlay.containers.addresses import Holder
    from overlay.questions import Answer, Request, TellRows

# Ours
LARGEST_MTU = 65535


async def answer(running: Running, request: Request, _tell_rows: TellRows) -> Answer:
    """Attach the container; return names, addresses, gateways, routes and MTU.  A refusal leaves nothing behind."""
    try:
        wanted = _wanted(holder_of(request), request)
        with opened(request) as inside:
            made = await running.containers.attach(wanted, inside)
    except REFUSED as error:
        return refused(error)
    gateways = {gateway.version: str(gateway) for gateway in made.gateways}
    return {
        "ok": True,
        "outer": made.outer,
        "outer_mac": made.outer_mac,
        "mac": made.mac,
        "mtu": made.mtu,
        "addresses": [[str(each), gateways[each.version]] for each in made.addresses],
        "routes": [[str(each), gateways[each.version]] for each in made.networks],
    }


def _wanted(holder: Holder, request: Request) -> InterfaceRequest:
    mac, mtu, networks = request.get("mac"), request.get("mtu"), networks_of(request)
    if mac is not None:
        try:
            mac = format_mac(parse_mac(str(mac)))
        except ValueError as error:
            raise ValueError(f"mac {mac!r} {error}") from None
    if mtu is not None and not (type(mtu) is int and IPV6_MINIMUM_MTU <= mtu <= LARGEST_MTU):
        raise ValueError(f"mtu is {mtu!r:.40}, but must be from {IPV6_MINIMUM_MTU} to {LARGEST_MTU}")
    addresses = addresses_of(request)
    if networks is None:
        return InterfaceRequest(holder, addresses, mac=mac, mtu=mtu)
    return InterfaceRequest(holder, addresses, networks=networks, mac=mac, mtu=mtu)
