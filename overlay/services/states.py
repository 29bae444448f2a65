"""The states of a flow as seen by a director, which receives clients' packets but not servers' answers.

The states of TCP and their changes are those of the "input only" table of the kernel's ip_vs_proto_tcp.c, with two more
for flows of which one packet has arrived and nothing shows that it was answered: with a spoofed source there is never a
second one, so these flows are the first to be forgotten.
"""

from __future__ import annotations

import enum


class State(enum.IntEnum):
    """What has been seen of a flow.  0 means nothing."""

    NONE = 0
    SYN_RECV = 1
    ESTABLISHED = 2
    FIN_WAIT = 3
    TIME_WAIT = 4
    CLOSE = 5
    MIDSTREAM = 6  # TCP whose first packet seen was not a SYN: after a restart, or a takeover
    DATAGRAM = 7  # UDP or SCTP of which one packet has arrived
    UDP = 8  # of which more have arrived; SCTP too, whose heartbeats keep it


# Specification (ip_vs_proto_tcp.c; the flags are those of RFC 9293 section 3.1)
_FIN, _SYN, _RST = 0x01, 0x02, 0x04
_TIMEOUTS = {
    State.NONE: 0.0,
    State.SYN_RECV: 60.0,
    State.TIME_WAIT: 120.0,
    State.CLOSE: 10.0,
}
TCP_TIMEOUT, FIN_TIMEOUT, UDP_TIMEOUT = 900.0, 120.0, 300.0  # seconds, unless the peers file says otherwise

# The state after a packet with SYN, with FIN, with neither, and with RST, by the state before it
_NEXT = (
    (State.SYN_RECV, State.CLOSE, State.MIDSTREAM, State.CLOSE),  # of an unknown flow
    (State.SYN_RECV, State.TIME_WAIT, State.ESTABLISHED, State.SYN_RECV),  # SYN_RECV
    (State.ESTABLISHED, State.FIN_WAIT, State.ESTABLISHED, State.CLOSE),  # ESTABLISHED
    (State.SYN_RECV, State.FIN_WAIT, State.FIN_WAIT, State.CLOSE),  # FIN_WAIT
    (State.SYN_RECV, State.TIME_WAIT, State.TIME_WAIT, State.CLOSE),  # TIME_WAIT
    (State.SYN_RECV, State.CLOSE, State.CLOSE, State.CLOSE),  # CLOSE
    (State.SYN_RECV, State.FIN_WAIT, State.ESTABLISHED, State.CLOSE),  # MIDSTREAM
)
_SYN_NEXT, _FIN_NEXT, _OTHER_NEXT, _RST_NEXT = range(4)

CLOSING = frozenset({State.FIN_WAIT, State.TIME_WAIT, State.CLOSE})
"""A flow of these states counts as inactive, and a SYN begins another connection."""

UNPROVEN = frozenset({State.SYN_RECV, State.MIDSTREAM, State.DATAGRAM})
"""Nothing has shown that the client of such a flow exists."""

OPEN = frozenset({State.ESTABLISHED, State.FIN_WAIT, State.UDP})
"""Such a flow is worth telling another director: its client exists, and more packets may come."""


def after_tcp(state: int, flags: int) -> State:
    """Return the state of a TCP flow in *state*, a State, after a packet with *flags*, the byte of the header."""
    if flags & _RST:
        event = _RST_NEXT
    elif flags & _SYN:
        event = _SYN_NEXT
    elif flags & _FIN:
        event = _FIN_NEXT
    else:
        event = _OTHER_NEXT
    return _NEXT[state][event]


def after_datagram(state: int) -> State:
    """Return the state of a flow without connection in *state*, a State, after one more packet."""
    return State.UDP if state else State.DATAGRAM


def timeouts(
    tcp: float = TCP_TIMEOUT, fin: float = FIN_TIMEOUT, udp: float = UDP_TIMEOUT
) -> tuple[float, ...]:
    """Return after how many seconds without a packet a flow is forgotten, by state."""
    by_state = _TIMEOUTS | {
        State.ESTABLISHED: tcp,
        State.MIDSTREAM: tcp,
        State.FIN_WAIT: fin,
        State.DATAGRAM: udp,
        State.UDP: udp,
    }
    return tuple(by_state[state] for state in State)
