"""Why a peer does not answer, as far as its state tells."""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.cli.agents import UNENCRYPTED
from overlay.cli.output import format_age

if TYPE_CHECKING:
    from overlay.cli.agents import PeerAnswer

# Specification
REJECT_AFTER_TIME = 180.0  # seconds; whitepaper section 6.1: no older handshake carries packets
SILENCE_TIME = 15.0  # KEEPALIVE_TIMEOUT + REKEY_TIMEOUT: who is there has answered by then


def why_silent(answer: PeerAnswer, name: str, way: str, elapsed: float) -> str:
    """Return a sentence on a peer, shown as *name*, that has answered no request by *way* in *elapsed* seconds."""
    silent = f"{name} does not answer"
    where = _where(answer)
    if answer.state == UNENCRYPTED:
        return f"{silent}, and without encryption nothing is known of it: {where}"
    if answer.notes:
        return f"{silent}: {'; '.join(answer.notes)}"
    if answer.strangers:
        return (
            f"{silent}, and from its address somebody calls with the public key {answer.strangers[0]}, which no peer "
            f"has: see whether the public_key of {answer.name} is right"
        )
    if answer.endpoint is None:
        return f"{silent}: {where}"
    if answer.last_handshake is None:
        return f"there was never a handshake with {answer.name}: {where}{_whose_key(answer)}"
    age = format_age(answer.last_handshake)
    if answer.state != "up" or answer.last_handshake >= REJECT_AFTER_TIME:
        return f"{silent}; it is {answer.state}, and its last handshake was {age}: {where}"
    if way == "in-band":  # those pass by the firewall of the far host
        return f"{silent}; its last handshake was {age}: {where}"
    if answer.last_received is not None and answer.last_received < elapsed:
        return (
            f"{silent}, but its tunnel works: its last message came {format_age(answer.last_received)}; "
            "see whether its firewall drops echo requests"
        )
    return (
        f"{silent}; its last handshake was {age}, and nothing at all came from it meanwhile: {where}; if `overlay status` does not call it silent "
        f"within {SILENCE_TIME:g} s, its firewall drops echo requests"
    )


def why_no_echo(answer: PeerAnswer, *, is_asked_for: bool) -> str:
    """Return a sentence on a peer that cannot be sent echo requests; *is_asked_for*: by ``--icmp``."""
    without = answer.name if answer.own_addresses else "this node"
    why = f"{without} has no address on the overlay, so there are no echo requests"
    if is_asked_for:
        return f"{why}: leave --icmp out"
    if answer.last_handshake is None or answer.last_handshake >= REJECT_AFTER_TIME:
        return f"{why}, and there is no session with {answer.name}: see whether its agent runs and is reached"
    return f"{why}, and {answer.name} has not said yet that it answers in-band pings: try again in a second"


def _where(answer: PeerAnswer) -> str:
    """Return what to look at on the way to the peer."""
    if answer.endpoint is None:
        if answer.resolve_error is not None:
            return f"it cannot be called, because its endpoint {answer.resolve_error}"
        if answer.is_configured:
            return "the name of its endpoint has not been looked up yet: try again in a second"
        if not answer.has_own_endpoint:
            return "neither it nor this node has an endpoint in the peers file, so none can call: give one to either"
        return "it has no endpoint, so it must call first"
    look = f"see whether its agent runs, and whether UDP reaches it at {answer.endpoint}"
    if answer.resolve_error is not None:
        return f"{look}, its last known address, because its endpoint {answer.resolve_error}"
    return look


def _whose_key(answer: PeerAnswer) -> str:
    if answer.own_public_key is None:
        return ""
    return f", and whether it knows this node by the public key {answer.own_public_key}"
