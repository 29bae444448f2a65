"""The agents that run on this host, and their answers."""

# ruff: noqa: PLC0415  completion and --help do not need the control socket

from __future__ import annotations

import contextlib
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, TypeVar

from overlay.cli.exits import Failure, Misuse
from overlay.cli.output import suggest
from overlay.cli.surroundings import Surroundings
from overlay.troubles.absent import Absent

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import click

    from overlay.errors import HostError

T = TypeVar("T")

# Ours
UNENCRYPTED = "unencrypted"  # the state of a peer without handshakes
COMPLETION_TIMEOUT = 0.5  # seconds; a user who presses tab does not wait longer
# What follows "no overlay agent runs", by request; START for any other
REMEDIES = {"down": "there is nothing to stop"}
START = "start it with `overlay up --peers FILE`"
WG_QUICK = "WG_QUICK_USERSPACE_IMPLEMENTATION=overlay-wg wg-quick up"


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """One peer as the agent sees it.  Ages are in seconds, None for never; any other None is not known."""

    name: str
    state: str | None
    encapsulation: str
    endpoint: str | None
    subnets: list[str]
    mac: str | None
    own_mac: str | None
    last_handshake: float | None
    last_received: float | None
    path_mtu: int | None
    learnt_macs: int | None
    session_lanes: int | None
    open_lanes: int | None
    rx_bytes: int | None
    tx_bytes: int | None
    drops: dict[str, int] | None
    notes: list[str]

    @property
    def is_counted(self) -> bool:
        """Return whether the forwarder has reported its counters."""
        return self.rx_bytes is not None


@dataclass(frozen=True, slots=True)
class Stranger:
    """A caller with a public key that no peer has; *peer* is the one at the same address."""

    public_key: str
    endpoint: str
    calls: int
    last_call: float
    peer: str | None


@dataclass(frozen=True, slots=True)
class LaneTraffic:
    """What one lane has carried."""

    rx_bytes: int
    tx_bytes: int
    rx_packets: int
    tx_packets: int


@dataclass(frozen=True, slots=True)
class Status:
    """What ``overlay status`` shows of a node."""

    node: str
    interface: str
    device: str
    public_key: str | None
    mtu: int
    mtu_reason: str
    port: int | None
    addresses: list[str]
    prefixes: list[str]
    pid: int
    forwarder_pid: int | None
    packet_path: str  # "compiled" or "interpreted"
    lanes: int
    lane_traffic: list[LaneTraffic]  # of each, if there are several
    aes: str  # the library that seals units with AES in the compiled path
    uptime: float
    peers_file: str
    reload_error: str | None
    key_error: str | None  # why the node has no private key, though its file has one
    store: dict[str, Any] | None  # the state of this host in a store that it takes part in
    notes: list[str]
    drops: dict[str, int] | None  # None if not known
    absent: Absent
    strangers: list[Stranger]
    services: dict[str, int]  # how many are in each state
    containers: dict[str, Any]  # how many are attached, and the subnets of their addresses
    peers: list[PeerStatus]


@dataclass(frozen=True, slots=True)
class PeerAnswer:
    """What ``overlay ping`` needs to know about a peer."""

    name: str
    public_key: str | None
    encapsulation: str
    addresses: list[str]
    own_name: str
    own_addresses: list[str]
    own_public_key: str | None
    has_own_endpoint: bool
    is_bare: bool
    """Whether `wg` configures the interface, without a peers file."""
    is_agent: bool
    """Whether an agent of this project runs there, according to the peers file."""
    services: list[dict[str, Any]]
    """The servers of services that are this peer; their states only if this node balances them."""
    last_handshake: float | None
    last_received: float | None
    state: str
    endpoint: str | None
    is_configured: bool
    """Whether it has an endpoint in the peers file."""
    resolve_error: str | None
    strangers: list[str]
    """Unknown public keys that call from its address."""
    notes: list[str]
    asked_address: str | None
    """The address that was asked for, if not the name."""
    carried_by: str
    """What must pass between its end of the tunnel and this one, such as ``UDP``."""
    identified_by: str | None
    """The number that both ends of the tunnel must have, such as ``the GRE key 7``."""
    mismatched: int
    """Packets from its endpoint with another such number."""
    foreign: int
    """Packets from it that were dropped because their sources are not in its subnets."""
    forwarder_note: str | None
    """A sentence if the forwarder did not report its counters, so that nothing is known about the tunnel."""

    @property
    def asked_behind(self) -> str | None:
        """The address that was asked for, if it is behind the peer and not its own."""
        return None if self.asked_address in self.addresses else self.asked_address


@dataclass(frozen=True, slots=True)
class Examination:
    """What ``overlay doctor`` needs about the node in addition to the findings on peers; *ask* are the peers to ask."""

    node: str
    packet_path: str  # "compiled" or "interpreted"
    peers: int
    ask: list[str]
    is_complete: bool
    forwarder_pid: int | None
    drops: dict[str, int]
    devices: list[str]
    """The node's own device, and those of the underlay."""
    foreign: dict[str, int]
    """How many packets of each peer were dropped because their sources are not in its subnets, if any were."""
    floods: dict[str, list[int]]
    """By name, for each peer of which packets were dropped early: how many were, and how many others arrived."""
    rekey_timeout_seconds: float
    findings: list[dict[str, Any]]


def agent_path(ctx: click.Context, interface: str) -> Path:
    """Return the control socket of the agent of *interface* in this network namespace."""
    from overlay.host.control import find

    return find(interface, _directories(ctx))


def ask(ctx: click.Context, interface: str, **message: Any) -> dict[str, Any]:
    """Return the agent's answer to *message*.  Raises HostError without an answer, Failure for a refusal."""
    from overlay.host.control import NoAgentError, request

    try:
        answer = request(agent_path(ctx, interface), message)
    except NoAgentError as refused:
        raise _without_agent(ctx, interface, message, refused) from refused
    return _accepted(interface, message, answer)


def ask_in_pieces(
    ctx: click.Context, interface: str, take: Callable[[list[Any]], object], **message: Any
) -> dict[str, Any]:
    """Return the agent's answer to *message*, and pass the rows that come before it to *take*, a few at a time.

    Raises HostError without an answer, Failure for a refusal.
    """
    return ask_with_descriptors(ctx, interface, take, (), message)


def ask_with_descriptors(
    ctx: click.Context,
    interface: str,
    take: Callable[[list[Any]], object],
    descriptors: Sequence[int],
    message: Mapping[str, Any],
) -> dict[str, Any]:
    """Do what ask_in_pieces() does; the agent gets copies of *descriptors*."""
    from overlay.host.control import NoAgentError, converse

    try:
        answer = converse(agent_path(ctx, interface), dict(message), take, descriptors=descriptors)
    except NoAgentError as refused:
        raise _without_agent(ctx, interface, message, refused) from refused
    return _accepted(interface, message, answer)


def _without_agent(
    ctx: click.Context, interface: str, message: Mapping[str, Any], refused: HostError
) -> HostError:
    """Return the error that says what to do when no agent runs for *interface*."""
    from overlay.host.control import NoAgentError, is_answered

    others = [each for each in running_interfaces(ctx) if is_answered(agent_path(ctx, each))]
    if not others:
        remedy = REMEDIES.get(str(message.get("op")), start(ctx, interface))
        return NoAgentError(f"{refused}: {remedy}{_describe_guards(ctx, interface)}")
    listed = " and ".join(others)
    return NoAgentError(
        f"no overlay agent runs for {interface} here, but one does for {listed}: add --interface {others[0]}"
    )


def start(ctx: click.Context, interface: str) -> str:
    """Return how to start an agent for *interface*: with wg-quick, if that is configured."""
    return f"start it with `{WG_QUICK} {interface}`" if is_of_wg_quick(ctx, interface) else START


def is_of_wg_quick(ctx: click.Context, interface: str) -> bool:
    """Return whether wg-quick has a configuration for *interface* that this user may see."""
    with contextlib.suppress(OSError):
        return (Surroundings.of(ctx).wg_quick_directory / f"{interface}.conf").exists()
    return False


def _accepted(interface: str, message: Mapping[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    """Return *answer*; raise Misuse, WaitingError or Failure if it is a refusal."""
    if answer.get("ok") is True:
        return answer
    error = str(answer.get("error") or f"the agent of {interface} refused without a reason: see its log")
    if answer.get("kind") == "own":
        raise Misuse(error)
    if answer.get("kind") == "waiting":
        from overlay.host.control import WaitingError

        raise WaitingError(error, str(answer.get("reason")))
    if answer.get("kind") == "unknown_peer":
        known = [str(name) for name in answer.get("known") or ()]
        raise Misuse(f"{error}; {suggest(str(answer.get('asked', message.get('name'))), known)}")
    if answer.get("kind") == "unknown_service":
        known = [str(name) for name in answer.get("known") or ()]
        raise Misuse(f"{error}: {'there are ' + ', '.join(known) if known else 'there are none'}")
    raise Failure(error)


def read_status(interface: str, answer: Mapping[str, Any]) -> Status:
    """Return the status in an answer of the agent of *interface*."""
    status = _build(Status, interface, answer.get("status"))
    return replace(
        status,
        absent=_build(Absent, interface, status.absent),
        strangers=[_build(Stranger, interface, each) for each in status.strangers],
        lane_traffic=[_build(LaneTraffic, interface, each) for each in status.lane_traffic],
        peers=[_build(PeerStatus, interface, peer) for peer in status.peers],
    )


def read_peer_status(interface: str, answer: Mapping[str, Any]) -> PeerStatus:
    """Return the row of the peer, with its counters, in the answer of the agent of *interface* to a question about one
    peer.
    """
    return _build(PeerStatus, interface, answer.get("peer"))


def read_peer(interface: str, answer: Mapping[str, Any]) -> PeerAnswer:
    """Return the peer in an answer of the agent of *interface*."""
    return _build(PeerAnswer, interface, answer.get("peer"))


def read_examination(interface: str, answer: Mapping[str, Any]) -> Examination:
    """Return what the agent has found, except for its peers."""
    return _build(Examination, interface, answer.get("doctor"))


def running_interfaces(ctx: click.Context) -> list[str]:
    """Return the interfaces that have a control socket in this network namespace; empty on any failure."""
    from overlay.host.control import control_path, interface_of

    found: set[str] = set()
    for directory in _directories(ctx):
        with contextlib.suppress(OSError):
            names = ((interface_of(path), path) for path in directory.glob("*.sock"))
            found.update(name for name, path in names if control_path(name, directory) == path)
    return sorted(found)


def known_peers(ctx: click.Context, interface: str) -> list[str]:
    """Return the names of the agent's peers; empty on any failure.

    It asks for a peer with an empty name, because the answer then contains all names and nothing else.
    """
    from overlay.errors import HostError
    from overlay.host.control import request

    try:
        answer = request(agent_path(ctx, interface), {"op": "peer", "name": ""}, COMPLETION_TIMEOUT)
    except (HostError, OSError):
        return []
    return [str(name) for name in answer.get("known") or ()]


def _describe_guards(ctx: click.Context, interface: str) -> str:
    """Return a further sentence if an agent that is gone still keeps packets of the overlay from leaving
    unencrypted.
    """
    from overlay.errors import HostError
    from overlay.host import guards

    try:
        number = (Surroundings.of(ctx).count_guards or guards.count)(interface)
    except HostError:  # the caller asked for this case
        number = 0
    if not number:
        return ""
    return (
        "; one that was killed or ended with an error left routes that reject all packets for the overlay, so that "
        "none leaves unencrypted: `overlay up` takes them over, `overlay down` removes them"
    )


def _directories(ctx: click.Context) -> list[Path]:
    from overlay.host.control import directories

    given = Surroundings.of(ctx).control_directory
    return directories() if given is None else [given]


def _build(form: type[T], interface: str, values: object) -> T:
    """Return *values* as *form*, without values that only a newer agent has."""
    names = [field.name for field in fields(form)]  # type: ignore[arg-type]  # each form is a dataclass
    if not isinstance(values, dict) or any(name not in values for name in names):
        raise Failure(f"the agent of {interface} is of another version than this command: start it again")
    return form(**{name: values[name] for name in names})
