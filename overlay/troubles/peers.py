"""Problems of single peers, as findings that lead to the remedy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from overlay.diagnosis.finding import Finding
from overlay.durations import format_duration
from overlay.numbers import count
from overlay.troubles.unresolved import UNRESOLVED
from overlay.wire.ip import IPV6_MINIMUM_MTU

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from overlay.host.netlink.path_mtu_exceptions import LearntMtu
    from overlay.roster import Remote
    from overlay.session.peer import HandshakeStatus

# Ours
CLOCK_TIME = 3600.0  # seconds for which a note on a clock stays; the peer may not call again in that time
AHEAD = 600.0  # seconds; clocks that are set from the network differ by less than one
LEAST_COMMON_MTU = IPV6_MINIMUM_MTU  # bytes; every IPv6 link carries that, and so do today's other links
# Peer states that need attention, the worst first; a connecting peer may come to need it.
STATES = ("unreachable", UNRESOLVED, "unconfirmed", "silent")
BEGINNING = "connecting"
UNREACHED = {
    "unreachable": "has not answered a handshake for 90 s",
    "silent": "has not answered for 15 s",
}
ROUNDING = 16  # bytes between the sizes that probes try
SHOWN = 10  # peers in the notes of the node; notes on others are only in their own rows


def troubles_of(
    remote: Remote,
    handshakes: HandshakeStatus | None,
    now: float,
    patience: float,
    compare: str = "compare the preshared keys",
) -> list[Finding]:
    """Return a finding for every problem of *remote* that this node can see.

    *handshakes* are None without encryption; their results count for *patience* seconds.  *compare* says how to find
    out whether preshared keys differ.
    """
    name = remote.peer.name
    found = [remote.whereabouts.trouble(name, now)]
    if handshakes is not None and handshakes.is_doubted(now, patience):
        kind = "preshared_key" if handshakes.refused else "unconfirmed"
        found.append(Finding(kind, _doubts(name, handshakes), compare, name))
    if handshakes is not None and handshakes.has_clock_behind and now - handshakes.outdated_at < CLOCK_TIME:
        found.append(
            Finding(
                "clock_behind",
                f"the clock of {name} was set back by {format_duration(handshakes.behind)}, so this node refuses its "
                "handshakes and starts them itself",
                "correct that clock",
                name,
            )
        )
    return [each for each in found if each is not None]


def _doubts(name: str, handshakes: HandshakeStatus) -> str:
    if handshakes.refused:
        return (
            f"handshakes with {name} fail because its answers cannot be opened ({handshakes.refused} so far), probably "
            "because the preshared keys differ"
        )
    return (
        f"handshakes with {name} fail because it used none of the {handshakes.unconfirmed} that this node "
        "answered, so the preshared keys differ, or the answers do not reach it"
    )


def clock_ahead(name: str, ahead: float | None) -> Finding | None:
    """Return a finding if the clock of *name* is *ahead* seconds ahead of this host's; None if that is not known.

    This node cannot know which of the two is wrong.
    """
    if ahead is None or ahead < AHEAD:
        return None
    return Finding(
        "clock_ahead",
        f"the clock of {name} is {format_duration(ahead)} ahead of this host's",
        "see which is wrong, with `date -u` on both, and correct it: once a clock was set back, handshakes of its host "
        "look like replays",
        name,
    )


def told_too_little(name: str, learnt: LearntMtu, path_mtu: int) -> Finding | None:
    """Return a finding if the kernel has learned a path MTU to *name* that is smaller than that of any common link.

    The result of probes, *path_mtu* bytes or 0, takes precedence.
    """
    if learnt.mtu >= LEAST_COMMON_MTU or path_mtu > learnt.mtu:
        return None
    return Finding(
        "kernel_path_mtu",
        f"an ICMP error, which anyone may have sent, told the kernel that the path to {name} carries packets of at "
        f"most {learnt.mtu} bytes, and the kernel uses this for {format_duration(learnt.seconds)} more",
        "if it is wrong, run `ip route flush cache`",
        name,
    )


def narrow_path(name: str, path_mtu: int, mtu: int) -> Finding | None:
    """Return a finding if probes found a path of *path_mtu* bytes while the tun's *mtu* promises more; None otherwise.

    0 means that the path MTU is not known.  A difference of a byte or two does not matter.
    """
    if not path_mtu or path_mtu + ROUNDING >= mtu:
        return None
    return Finding(
        "path_narrow",
        f"the path to {name} carries packets of at most {path_mtu} bytes, while the interfaces of this host allow "
        f"{mtu}: larger ones are sent in pieces, or their senders get an ICMP error",
        f"if this does not change, write mtu = {path_mtu} under [network]",
        name,
    )


def unreached(row: Mapping[str, Any], carried_by: str) -> Finding | None:
    """Return a finding on the peer of a status *row* that does not answer; None if it does, or another note says why.

    *carried_by* is what must pass on the way to it, such as ``UDP``.
    """
    beginning = UNREACHED.get(row["state"])
    if beginning is None or row["notes"] or row["endpoint"] is None:
        return None
    name, endpoint = row["name"], row["endpoint"]
    keys = ""
    if row["last_handshake"] is None:
        keys = f"whether `overlay pubkey` at {name} prints {row['public_key']}, "
    return Finding(
        "silent" if row["state"] == "silent" else "no_answer",
        f"{name} at {endpoint} {beginning}",
        f"see whether its agent runs, {keys}whether it listens on that port, and whether firewalls on the way let "
        f"{carried_by} pass; `overlay ping {name}` tells more",
        name,
    )


def severity(state: str | None, notes: Collection[str]) -> int:
    """Return how urgent a peer in *state*, with *notes* on it, is: above 1 it is in trouble, 1 is a doubt.

    If the forwarder does not answer, the state of every peer is unknown, which is not a problem of any peer.
    """
    if state in STATES:
        return len(STATES) - STATES.index(state) + 2
    if notes:
        return 2
    return 1 if state == BEGINNING else 0


def notes_of(rows: Iterable[dict[str, Any]]) -> list[str]:
    """Return the troubles in the *rows* of all peers, limited to the first SHOWN that have any."""
    troubled = [row["notes"] for row in rows if row["notes"]]
    notes = [note for each in troubled[:SHOWN] for note in each]
    if len(troubled) > SHOWN:
        notes.append(
            f"{count(len(troubled) - SHOWN, 'more peer has', 'more peers have')} notes: "
            "`overlay status --json` shows them"
        )
    return notes
