"""What a session machine asks the edge to do.  Values only: the machine itself does no I/O.

Those for the forwarder cross the link unchanged, so the types of fields declare their possible values.
"""

from dataclasses import dataclass, field
from typing import Annotated, TypeAlias

from overlay.session.constants import KEYPAIRS
from overlay.wire.addresses import Sockaddr
from overlay.wire.bounds import Datagram, Items, Key, UInt8, UInt32


@dataclass(frozen=True, slots=True)
class Transmit:
    """Send one handshake *datagram* to *peer*.

    *endpoint* None means the endpoint the forwarder holds for the peer.  *renew_source* asks it to forget the local
    source address first, as a retry must (the address may be gone).
    """

    peer: int
    datagram: Datagram
    endpoint: Sockaddr | None = None
    renew_source: bool = False


@dataclass(frozen=True, slots=True)
class InstallKeypair:
    """Put the keypair of a completed handshake into use.

    The initiator may send with it at once; the responder's waits in ``next`` until a message is received under it.
    *created* is in seconds of the injected clock; the rekey and reject times count from it.  *initiated* is when our
    initiation was sent, or equal to *created* if the peer's was answered.  *endpoint* is the source of the
    authenticated handshake message.
    """

    peer: int
    local_index: UInt32
    remote_index: UInt32
    send_key: Key = field(repr=False)
    receive_key: Key = field(repr=False)
    is_initiator: bool
    initiated: float
    created: float
    endpoint: Sockaddr
    unit_keys: list[tuple[UInt8, Key, Key]] = field(default_factory=list, repr=False)
    """(number of the cipher, key to send with, key to receive with) for bulk units."""


@dataclass(frozen=True, slots=True)
class Wipe:
    """Forget every keypair of *peer*: it was removed, or its last key is three reject times old."""

    peer: int


@dataclass(frozen=True, slots=True)
class Forget:
    """Forget these keypairs of *peer*, whose public key changed a while ago."""

    peer: int
    local_indices: Annotated[list[UInt32], Items(0, KEYPAIRS)]


@dataclass(frozen=True, slots=True)
class GiveUp:
    """No answer in REKEY_ATTEMPT_TIME: drop what is staged for *peer*, and tell its senders."""

    peer: int


@dataclass(frozen=True, slots=True)
class Answered:
    """For the edge: *peer* called from *endpoint* and was answered.  This completes nothing.

    Only Completed says that the peer could use the answer; with another preshared key it never can.
    """

    peer: int
    endpoint: Sockaddr


@dataclass(frozen=True, slots=True)
class Completed:
    """For the log: a handshake with *peer* was completed, *took* seconds after the first message of this node.

    The initiator completes it with the response, the responder with the first message under the new keys.  *round_trip*
    counts from the message that was answered, without earlier ones that got no answer.
    """

    peer: int
    endpoint: Sockaddr
    is_initiator: bool
    took: float
    round_trip: float


@dataclass(frozen=True, slots=True)
class Retrying:
    """For the edge: the initiation to *peer* got no answer and was repeated; the name of its endpoint should be
    resolved again.
    """

    peer: int
    attempt: int


Output: TypeAlias = Transmit | InstallKeypair | Wipe | Forget | GiveUp | Answered | Completed | Retrying
