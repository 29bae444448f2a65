"""``overlay ping``: test whether a peer answers through its tunnel."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import click

from overlay import numbers
from overlay.cli.agents import UNENCRYPTED, agent_path, ask, read_peer
from overlay.cli.exits import INTERRUPTED, Failure, Misuse
from overlay.cli.options import Number, Seconds, interface_option, json_option, peer_argument
from overlay.cli.output import show, show_json
from overlay.cli.surroundings import Surroundings
from overlay.cli.unanswered import Unanswered, name_sender, silence, why_no_echo
from overlay.documents import told

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from overlay.cli.agents import PeerAnswer
    from overlay.cli.echo import EchoError, EchoSocket
    from overlay.cli.in_band import InBandPings
    from overlay.diagnosis.finding import Finding
    from overlay.wire.icmp_errors import IcmpError
    from peers.addresses import Address

# Specification
SEQUENCES = 1 << 16  # RFC 792: 16 bits

# Ours
# Seconds; a router takes three to find that no host has an address, and then reports it (RFC 4861 section 10)
TIMEOUT = 4.0
PROOF_TIMEOUT = 1.0  # seconds for the peer itself to answer after another target did not
SHOWN_ERRORS = 16  # different ICMP errors in the JSON


@click.command("ping", epilog="Example: overlay ping tokyo -c 1")
@peer_argument()
@interface_option
@click.option("-c", "--count", type=Number(1, SEQUENCES - 1), default=4, help="How many requests to send.")
@click.option(
    "-i",
    "--interval",
    type=Seconds(0.001, 3600),
    default=1.0,
    metavar="SECONDS",
    help="Time between two requests.",
)
@click.option(
    "-W",
    "--timeout",
    type=Seconds(0.001, 3600),
    default=TIMEOUT,
    metavar="SECONDS",
    help="Time to wait for each reply.",
)
@click.option("--icmp", is_flag=True, help="Send ICMP echo requests even if the peer answers in-band pings.")
@json_option
@click.pass_context
def command(
    ctx: click.Context, /, peer: str, interface: str, icmp: bool, as_json: bool, **series: Any
) -> None:
    """Test whether PEER answers through the tunnel, and how fast.

    PEER is the name of a peer, or an address.  Requests to an address behind a peer go to that address.

    The requests are ICMP echo requests from this node's overlay address to the peer's, which its kernel answers.  A
    peer that has announced support in the current session gets in-band pings instead: they go from forwarder to
    forwarder, and each line says so.  The exit code is 0 if any request was answered, else 1.
    """
    answer = read_peer(interface, ask(ctx, interface, op="peer", name=peer))
    addresses = choose_addresses(answer)
    own, address = addresses or (None, None)
    name = f"{answer.name} ({address})" if address else answer.name
    is_behind = answer.asked_behind is not None
    if is_behind:
        name = f"{answer.asked_behind} behind {answer.name}"
    surroundings = Surroundings.of(ctx)
    tell = (lambda _: None) if as_json else show
    tell(f"ping {name} from {own}" if own else f"ping {name}")
    in_band = None if icmp or is_behind else open_in_band(ctx, interface, answer.name, series["timeout"])

    def open_echo() -> EchoSocket:
        if addresses is None:
            raise Failure(why_no_echo(answer, is_asked_for=icmp))
        return open_echo_socket(surroundings, *addresses)

    ping = Ping(in_band, open_echo, surroundings.now, name, tell, lambda sender: name_sender(answer, sender))
    began_at = surroundings.now()
    is_interrupted = _run(ping, **series)
    why = None
    if ping.sent and not ping.times:
        elapsed = surroundings.now() - began_at
        answer = read_peer(interface, ask(ctx, interface, op="peer", name=peer, is_counted=True))
        why = str(explain(ctx, interface, answer, own, ping, elapsed, is_asking=not is_interrupted))
    if as_json:
        show_json(told(_describe(ping, answer, own, address) | {"why": why}))
    else:
        show(_summarize(ping))
    if is_interrupted:
        ctx.exit(INTERRUPTED)
    if not ping.times:
        raise Failure(why or f"no request was sent to {name}")


@dataclass(slots=True)
class Ping:
    """A series of requests to *name*, and how long each reply took.

    They are *in_band* pings while the peer can answer those, then echo requests.
    """

    in_band: InBandPings | None
    open_echo: Callable[[], EchoSocket]
    now: Callable[[], float]
    name: str
    tell: Callable[[str], None]
    name_sender: Callable[[Address], str]
    echo: EchoSocket | None = None
    sent: int = 0
    sent_in_band: int = 0
    times: list[float] = field(default_factory=list)
    """Seconds, in the order of the replies."""
    waiting: dict[int, float] = field(default_factory=dict)
    """When each request without a reply was sent, by sequence, in the order of sending."""
    errors: dict[tuple[Address, IcmpError], int] = field(default_factory=dict)
    """How often each ICMP error came back, by sender; only the first SHOWN_ERRORS different ones."""
    last_error: EchoError | None = None

    @property
    def way(self) -> str:
        """How the requests were sent: ``icmp``, ``in-band``, or ``both``."""
        return "icmp" if not self.sent_in_band else "in-band" if self.sent_in_band == self.sent else "both"

    def run(self, count: int, interval: float, timeout: float) -> None:
        """Send *count* requests, one every *interval* seconds, and wait *timeout* seconds for each reply."""
        send_at = self.now()
        while self.sent < count or self.waiting:
            if self.sent < count and self.now() >= send_at:
                self.sent += 1
                self._send(self.sent)
                send_at += interval
            self._expire(timeout)
            wake_at = send_at if self.sent < count else math.inf
            if self.waiting:
                wake_at = min(wake_at, next(iter(self.waiting.values())) + timeout)
            if wake_at < math.inf:
                self._receive(max(0.0, wake_at - self.now()))

    def close(self) -> None:
        """Close what was opened."""
        for each in (self.in_band, self.echo):
            if each is not None:
                each.close()

    def _send(self, sequence: int) -> None:
        sent_at = self.now()
        if self.in_band is not None:
            self.waiting[sequence] = sent_at
            self.sent_in_band += 1
            with self._until_not_able():
                self.in_band.send(sequence)
            return
        if self.echo is None:
            self.echo = self.open_echo()
        try:
            self.echo.send(sequence)
        except OSError as error:
            self.tell(f"seq={sequence} to {self.name} cannot be sent: {error.strerror}")
        else:
            self.waiting[sequence] = sent_at

    def _receive(self, timeout: float) -> None:
        if self.in_band is not None:
            with self._until_not_able():
                reply = self.in_band.receive(timeout)
                if reply is not None and reply.seconds is not None:
                    self._answered(reply.sequence, reply.seconds, " in-band")
            return
        assert self.echo is not None
        try:
            got = self.echo.receive(timeout)
        except OSError as error:
            if (
                self.waiting
            ):  # it may be any of them: an error of this host names the address, not the request
                sequence = next(iter(self.waiting))
                del self.waiting[sequence]
                self.tell(f"seq={sequence} to {self.name} is lost: {error.strerror}")
            return
        if isinstance(got, int):
            if got in self.waiting:
                self._answered(got, self.now() - self.waiting[got])
        elif got is not None and 0 < got.sequence <= self.sent:
            self._refused(got)

    def _answered(self, sequence: int, seconds: float, how: str = "") -> None:
        if self.waiting.pop(sequence, None) is not None:
            self.times.append(seconds)
            self.tell(f"reply from {self.name}: seq={sequence} time={_format_ms(seconds)} ms{how}")

    def _refused(self, error: EchoError) -> None:
        """Record an ICMP error for a request, which may have been counted as lost already."""
        kind = error.sender, error.error
        if kind in self.errors or len(self.errors) < SHOWN_ERRORS:
            self.errors[kind] = self.errors.get(kind, 0) + 1
        self.last_error = error
        self.waiting.pop(error.sequence, None)
        self.tell(f"error from {self.name_sender(error.sender)}: seq={error.sequence} {error.error}")

    def _expire(self, timeout: float) -> None:
        now = self.now()
        for sequence in [number for number, sent_at in self.waiting.items() if sent_at + timeout <= now]:
            del self.waiting[sequence]
            self.tell(
                f"no reply from {self.name}: seq={sequence}{' in-band' if self.in_band is not None else ''}"
            )

    @contextlib.contextmanager
    def _until_not_able(self) -> Iterator[None]:
        """Switch to echo requests if the block finds that the peer cannot answer in-band; repeat the waiting
        requests.
        """
        from overlay.cli.in_band import NotAbleError  # noqa: PLC0415  completion does without it

        try:
            yield
        except NotAbleError:
            assert self.in_band is not None
            self.in_band.close()
            self.in_band = None
            waiting, self.waiting = self.waiting, {}
            self.sent_in_band -= len(waiting)
            for sequence in waiting:
                self._send(sequence)


def _run(ping: Ping, count: int, interval: float, timeout: float) -> bool:
    """Run *ping* and close it; return whether it was interrupted."""
    try:
        ping.run(count, interval, timeout)
    except KeyboardInterrupt:
        return True
    finally:
        ping.close()
    return False


def explain(
    ctx: click.Context,
    interface: str,
    answer: PeerAnswer,
    own: Address | None,
    ping: Ping,
    elapsed: float,
    *,
    is_asking: bool,
) -> Finding:
    """Return why no answer came within *elapsed* seconds; with *is_asking*, the peer itself may be asked."""
    error = ping.last_error
    if error is not None and str(error.sender) in answer.own_addresses:
        error = None  # this node's forwarder reported it, and the agent knows why
    is_asked, proof = False, None
    if is_asking and error is None and ping.way == "icmp" and answer.state in {"up", UNENCRYPTED}:
        is_asked, proof = _ask_peer(ctx, interface, answer, own)
    return silence(answer, Unanswered(ping.name, ping.way, elapsed, error, proof, is_asked))


def open_in_band(ctx: click.Context, interface: str, peer: str, timeout: float) -> InBandPings:
    from overlay.cli.in_band import InBandPings  # noqa: PLC0415  only where it is needed

    return InBandPings(agent_path(ctx, interface), peer, timeout, Surroundings.of(ctx).sleep)


def _ask_peer(
    ctx: click.Context, interface: str, answer: PeerAnswer, own: Address | None
) -> tuple[bool, str | None]:
    """Return whether the peer itself can be asked when the target does not answer, and how it answers if it does.

    It is asked in-band if possible, otherwise at an address of its own if that is not the target.
    """
    from overlay.cli.in_band import NotAbleError  # noqa: PLC0415  only where it is needed

    in_band = open_in_band(ctx, interface, answer.name, PROOF_TIMEOUT)
    try:
        in_band.send(1)
        reply = in_band.receive(PROOF_TIMEOUT)
    except NotAbleError:
        pass
    else:
        is_answered = reply is not None and reply.seconds is not None
        return True, f"{answer.name} answers in-band pings" if is_answered else None
    finally:
        in_band.close()
    if answer.asked_behind is None or own is None:
        return False, None
    address = next((each for each in map(ip_address, answer.addresses) if each.version == own.version), None)
    if address is None:
        return False, None
    surroundings = Surroundings.of(ctx)
    echo = open_echo_socket(surroundings, own, address)
    try:
        echo.send(1)
        until = surroundings.now() + PROOF_TIMEOUT
        while (left := until - surroundings.now()) > 0:
            if echo.receive(left) == 1:
                return True, f"{answer.name} itself answers at {address}"
    except OSError:
        pass  # no answer either
    finally:
        echo.close()
    return True, None


def open_echo_socket(surroundings: Surroundings, own: Address, address: Address) -> EchoSocket:
    if surroundings.open_echo is not None:
        return surroundings.open_echo(own, address)
    from overlay.cli.echo import IcmpSocket  # noqa: PLC0415  completion does without it

    return IcmpSocket(own, address)


def choose_addresses(answer: PeerAnswer) -> tuple[Address, Address] | None:
    """Return this node's address and the peer's, of the first family that both have; None if one has no address."""
    asked = answer.addresses if answer.asked_address is None else [answer.asked_address]
    addresses = [ip_address(text) for text in asked]
    if not addresses or not answer.own_addresses:
        return None
    own_by_version = {own.version: own for own in map(ip_address, answer.own_addresses)}
    for address in addresses:
        own = own_by_version.get(address.version)
        if own == address:
            raise Misuse(f"{answer.name} is this node itself; name another peer")
        if own is not None:
            return own, address
    raise Misuse(
        f"this node has {' and '.join(answer.own_addresses)}, {answer.name} has {' and '.join(asked)}: "
        "give both an address of one family in the peers file"
    )


def _summarize(ping: Ping) -> str:
    lost, errors = ping.sent - len(ping.times), sum(ping.errors.values())
    errors_text = f", {numbers.count(errors, 'error')}" if errors else ""
    line = f"{ping.sent} sent, {len(ping.times)} answered{errors_text}, {_percent(lost, ping.sent)}% lost"
    if not ping.times:
        return line
    least, mean, most = min(ping.times), sum(ping.times) / len(ping.times), max(ping.times)
    return f"{line}, round trip min/avg/max {_format_ms(least)}/{_format_ms(mean)}/{_format_ms(most)} ms"


def _describe(
    ping: Ping, answer: PeerAnswer, own: Address | None, address: Address | None
) -> dict[str, object]:
    return {
        "peer": answer.name,
        "address": None if address is None else str(address),
        "own_address": None if own is None else str(own),
        "way": ping.way,
        "sent": ping.sent,
        "answered": len(ping.times),
        "times_ms": [round(seconds * 1000, 3) for seconds in ping.times],
        "errors": [
            {
                "from": str(sender),
                "type": error.kind,
                "code": error.code,
                "meaning": str(error),
                "count": number,
            }
            for (sender, error), number in ping.errors.items()
        ],
        "state": answer.state,
        "endpoint": answer.endpoint,
        "last_handshake": answer.last_handshake,
    }


def _percent(part: int, whole: int) -> int:
    return round(100 * part / whole) if whole else 0


def _format_ms(seconds: float) -> str:
    milliseconds = seconds * 1000
    return f"{milliseconds:.{3 if milliseconds < 1 else 2 if milliseconds < 10 else 1 if milliseconds < 100 else 0}f}"
