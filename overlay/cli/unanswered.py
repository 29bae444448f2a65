"""Why a peer does not answer, judged by its state and the errors that came back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from overlay.cli.agents import UNENCRYPTED
from overlay.cli.output import format_age
from overlay.diagnosis.finding import Finding
from overlay.numbers import count
from overlay.session.constants import REJECT_AFTER_TIME
from overlay.wire.icmp_errors import Hint

if TYPE_CHECKING:
    from overlay.cli.agents import PeerAnswer
    from overlay.cli.echo import EchoError
    from peers.addresses import Address

# Specification
SILENCE_TIME = 15.0  # KEEPALIVE_TIMEOUT + REKEY_TIMEOUT: a reachable peer has answered by then


@dataclass(frozen=True, slots=True)
class Unanswered:
    """Requests without an answer; *name* is the destination as shown.

    They were sent as *way* says, the first of them *elapsed* seconds ago.  *error* is the last ICMP error that another
    host sent for one.  *proof* says how the peer itself answered after that, None if it did not or was not asked;
    *is_peer_asked* is whether it was asked, at its own address or in-band.
    """

    name: str
    way: str
    elapsed: float
    error: EchoError | None = None
    proof: str | None = None
    is_peer_asked: bool = False


def silence(answer: PeerAnswer, unanswered: Unanswered) -> Finding:
    """Return the finding on a peer, or a host behind it, that has not answered any request."""
    silent, peer, behind = f"{unanswered.name} does not answer", answer.name, answer.asked_behind

    def found(name: str, problem: str, remedy: str) -> Finding:
        return Finding(name, problem, remedy, peer)

    if unanswered.error is not None:
        return _refused(answer, silent, unanswered, unanswered.error)
    if unanswered.proof is not None:
        return _works(answer, unanswered, unanswered.proof)
    if behind is not None and unanswered.is_peer_asked:
        silent = f"{silent}, nor does {peer} itself"
    if answer.forwarder_note is not None:
        problem = f"{unanswered.name} does not answer, and it may not have been asked"
        return found("forwarder_silent", problem, answer.forwarder_note)
    where = _where(answer)
    if answer.state == UNENCRYPTED:
        return _in_the_clear(answer, unanswered, silent)
    if answer.notes:
        return found("no_answer", silent, "; ".join(answer.notes))
    if answer.strangers:
        return found(
            "unknown_key",
            f"{silent}, and handshakes from its address use the public key {answer.strangers[0]}, which no peer has",
            f"see whether `overlay pubkey` at {peer} prints that key; the peers file here has {answer.public_key}",
        )
    if answer.endpoint is None:
        return found(_why_nowhere(answer), silent, where)
    if answer.last_handshake is None:
        return found("no_answer", f"no handshake with {peer} yet", f"{where}{_compare_keys(answer)}")
    age = format_age(answer.last_handshake)
    if answer.state != "up" or answer.last_handshake >= REJECT_AFTER_TIME:
        problem = f"{silent}; {peer} is {answer.state}, and its last handshake was {age}"
        kind = "silent" if answer.state == "silent" else "no_answer"
        return found(kind, problem, f"{where}{_compare_keys(answer)}")
    if answer.last_received is not None and answer.last_received < unanswered.elapsed:
        return _works(
            answer, unanswered, f"the last message of {peer} came {format_age(answer.last_received)}"
        )
    silent = f"{silent}; the last handshake of {peer} was {age}, and {_heard(answer)}"
    if unanswered.way == "in-band":  # those are not filtered by the far host's firewall
        return found("silent", silent, where)
    inside = (
        "its firewall drops echo requests" if behind is None else f"{behind} is up and accepts echo requests"
    )
    if (
        answer.last_received is not None
        and answer.last_received < SILENCE_TIME
        and not unanswered.is_peer_asked
    ):
        return found(
            "silent",
            f"{silent}, before these requests",
            f"see whether {inside}, and, if `overlay status` calls {peer} silent after {SILENCE_TIME:g} s, "
            f"{where.removeprefix('see ')}",
        )
    otherwise = f"if `overlay status` does not call {peer} silent after {SILENCE_TIME:g} s, whether {inside}"
    return found("silent", silent, f"{where}, or, {otherwise}")


def why_no_echo(answer: PeerAnswer, *, is_asked_for: bool) -> str:
    """Return why a peer cannot be sent echo requests, as a sentence; *is_asked_for*: by ``--icmp``."""
    without = answer.name if answer.own_addresses else "this node"
    why = f"{without} has no address on the overlay, so it cannot be sent echo requests"
    if answer.is_bare and answer.asked_address is not None:
        return (
            f"no route of this host leads to {answer.asked_address} by this interface, so echo requests would not get "
            f"into the tunnel: `ip route get {answer.asked_address}` shows where it leads; wg-quick adds a route for "
            "each of the AllowedIPs"
        )
    if answer.is_bare:
        return (
            f"the AllowedIPs of {answer.name} have no single address that a route of this host leads to, so it cannot "
            "be sent echo requests: write an address in place of its name, such as `overlay ping 10.7.0.1`"
        )
    if is_asked_for:
        return f"{why}: omit --icmp"
    if answer.last_handshake is None or answer.last_handshake >= REJECT_AFTER_TIME:
        return f"{why}, and there is no session with {answer.name}: see whether its agent runs and can be reached"
    return f"{why}, and {answer.name} has not announced support for in-band pings yet: try again in a second"


def name_sender(answer: PeerAnswer, sender: Address) -> str:
    """Return the sender of an error: this node, the peer, or another host."""
    text = str(sender)
    if text in answer.own_addresses:
        return f"this node ({text})"
    return f"{answer.name} ({text})" if text in answer.addresses else text


def _describe(answer: PeerAnswer, error: EchoError) -> str:
    """Return a sentence on the sender of *error*, its meaning and what to check."""
    sender, asked = name_sender(answer, error.sender), answer.asked_address or answer.name
    look = {
        Hint.ABSENT: f"see whether {asked} is up and attached to the link on which that host looks for it",
        Hint.NO_ROUTE: "check the routes of that host",
        Hint.FILTERED: "see whether a packet filter or a route of that host is meant to reject echo requests",
        Hint.TOO_BIG: "see the MTU of the links behind it",
        Hint.LOOP: "see with `traceroute` whether routers send it in a circle",
        Hint.OTHER: "check the configuration of that host",
    }[error.error.hint]
    return f'{sender} says "{error.error}"; {look}'


def _refused(answer: PeerAnswer, silent: str, unanswered: Unanswered, error: EchoError) -> Finding:
    """Return the finding on requests that *error* refused.  If the peer was heard since, its tunnel brought it."""
    remedy = _describe(answer, error)
    is_heard = answer.last_received is not None and answer.last_received < unanswered.elapsed
    if answer.asked_behind is not None or not is_heard:
        return Finding("silent", silent, remedy, answer.name)
    if not answer.is_agent:
        said = f'{name_sender(answer, error.sender)} says "{error.error}" through it'
        remedy = f"{said}; write an address that {answer.name} has as its `address` in the peers file, or do nothing"
    return Finding("echo_ignored", f"{silent}, but its tunnel works", remedy, answer.name)


def _works(answer: PeerAnswer, unanswered: Unanswered, proof: str) -> Finding:
    """Return the finding that the tunnel works, as *proof* shows, so that the fault is at its far end or behind it."""
    silent, behind = f"{unanswered.name} does not answer", answer.asked_behind
    if answer.foreign:
        return foreign_sources(answer.name, answer.foreign, f"{silent}, but its tunnel works")
    if behind is None:
        remedy = (
            f"{proof}; see whether its firewall drops echo requests, and whether it really has that address"
        )
        return Finding("echo_ignored", f"{silent}, but its tunnel works", remedy, answer.name)
    home = next(iter(answer.own_addresses), "this node")
    return Finding(
        "echo_ignored",
        f"{silent}, but the tunnel to {answer.name} works",
        f"{proof}; see whether {behind} is up, accepts echo requests, and has a route to {home} by {answer.name}, and "
        f"whether {answer.name} forwards to it",
        answer.name,
    )


def _in_the_clear(answer: PeerAnswer, unanswered: Unanswered, silent: str) -> Finding:
    """Return the finding on a peer without handshakes."""
    if answer.mismatched:
        came = count(answer.mismatched, "packet")
        return Finding(
            "tunnel_number",
            f"{silent}; {came} from its endpoint did not have {answer.identified_by}",
            "configure the same at both ends of the tunnel",
            answer.name,
        )
    if answer.last_received is not None and answer.last_received < unanswered.elapsed:
        return one_way(answer, f"{silent}, though {_heard(answer)}")
    if not answer.is_agent and answer.services:
        return _plain_server(answer, silent)
    problem = (
        f"{silent}; the tunnel is not encrypted, so there are no handshakes to judge by, and {_heard(answer)}"
    )
    return Finding("silent", problem, _where(answer), answer.name)


def _plain_server(answer: PeerAnswer, silent: str) -> Finding:
    """Return the finding on a server without an agent, which has no address but the virtual ones of its services.

    Only checks show whether it accepts packets for these.
    """
    name, down = (
        answer.name,
        [each for each in answer.services if each["state"] == "down" and each["is_checked"]],
    )
    if not down:
        return Finding(
            "server_unasked",
            f"{silent}, as is usual for a server without an agent: it only has the virtual addresses of its services",
            f"`overlay check` prints what {name} needs, and a `check` of the service shows whether it accepts packets",
            name,
        )
    first, home = down[0], next(iter(answer.own_addresses), "this node")
    address, reason = first["addresses"][0], str(first["reason"])
    look = (
        f"see whether {name} is up, has {address} on a device (`ip address show to {address}`), the device of its "
        f"tunnel is up with rp_filter=2, its program listens at that address, and a route leads back to {home}: "
        "`overlay check` prints the commands"
    )
    if "refused" in reason:  # only a host that has the address refuses
        look = f"{name} has that address, but nothing listens there: start the program, or have it listen at {address}"
    return Finding(
        "server_silent",
        f"{name} does not take packets for {address} of services.{first['service']} through its tunnel; the last check "
        f"found: {reason}",
        look,
        name,
    )


def one_way(answer: PeerAnswer, problem: str) -> Finding:
    """Return the finding on a peer whose packets arrive unencrypted, which does not show that it accepts any."""
    name = answer.name
    remedy = (
        f"none if {name} only sends, as a director of LVS does, which accepts no packets from its servers; otherwise "
        f"see whether its end of the tunnel is up, takes {answer.carried_by} from here, and answers echo requests"
    )
    return Finding("tunnel_one_way", problem, remedy, name)


def foreign_sources(name: str, dropped: int, before: str = "") -> Finding:
    """Return the finding on the peer *name*, *dropped* packets of which had sources that it may not have here."""
    came = count(dropped, "packet")
    were = "was" if dropped == 1 else "were"
    begin = f"{before}; {came} of it" if before else f"{came} of {name}"
    return Finding(
        "foreign_source",
        f"{begin} {were} dropped so far, with sources that are not in its subnets in the peers file here (source)",
        f"compare address, subnets and public_key of {name} in the peers files of both hosts, and see whether a host "
        f"behind it has another address: `overlay capture {name} --dropped source` shows the packets",
        name,
    )


def foreign_meanwhile(answer: PeerAnswer, packets: int) -> Finding:
    """Return the finding on a silent peer without an agent, of which *packets* came meanwhile with foreign sources.

    They may be ICMP errors, for which a kernel takes an outer address if its tunnel has none, or what it sends to
    multicast groups by itself.
    """
    came = count(packets, "packet")
    were = "was" if packets == 1 else "were"
    return one_way(
        answer,
        f"{answer.name} does not answer; {came} of it came meanwhile and {were} dropped, as their sources are not in "
        "its subnets (source)",
    )


def _why_nowhere(answer: PeerAnswer) -> str:
    """Return the kind of finding for a peer without a known address."""
    if answer.is_configured or answer.resolve_error is not None:
        return "unresolved"
    return "waits_for_peer" if answer.has_own_endpoint or answer.is_bare else "no_endpoint"


def _heard(answer: PeerAnswer) -> str:
    what = "packet" if answer.state == UNENCRYPTED else "message"
    if answer.last_received is None:
        return f"no {what} has come from it"
    return f"its last {what} came {format_age(answer.last_received)}"


def _where(answer: PeerAnswer) -> str:
    """Return what to check on the path to the peer."""
    if answer.endpoint is None:
        if answer.resolve_error is not None:
            return f"it cannot be reached, because its endpoint {answer.resolve_error}"
        if answer.is_configured:
            return "the name of its endpoint has not been looked up yet: try again in a second"
        if answer.is_bare:
            return "it has no endpoint, so it has to connect first, or to be given one by `wg set`"
        if not answer.has_own_endpoint:
            return (
                "neither it nor this node has an endpoint in the peers file, so neither can connect: "
                "give one of them an endpoint"
            )
        return "it has no endpoint, so it has to connect first"
    runs = "its end of the tunnel is up" if answer.state == UNENCRYPTED else "its agent runs"
    look = f"see whether {runs}, and whether {answer.carried_by} reaches it at {answer.endpoint}"
    if answer.identified_by is not None:
        look = f"{look} with {answer.identified_by}"
    if answer.resolve_error is not None:
        return f"{look}, its last known address, because its endpoint {answer.resolve_error}"
    return look


def _compare_keys(answer: PeerAnswer) -> str:
    """Return the public keys that both ends must have for each other: a mistake at either end looks the same from
    here.
    """
    if answer.own_public_key is None or answer.public_key is None:
        return ""
    if answer.is_bare:
        return (
            f", and whether the keys are right: `wg show` there must print {answer.public_key} as its own public key, "
            f"and {answer.own_public_key} as a peer's"
        )
    return (
        f", and whether the public keys are right: `overlay pubkey` at {answer.name} must print {answer.public_key}, "
        f"and its peers file must have {answer.own_public_key} for {answer.own_name}"
    )
