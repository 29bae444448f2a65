from __future__ import annotations

import pytest

from overlay.services.states import CLOSING, UNPROVEN, State, after_datagram, after_tcp, timeouts
from overlay.wire.tcp import ACK, ECE, FIN, PSH, RST, SYN

# The kernel's table (ip_vs_proto_tcp.c, "input only"): the states after SYN, FIN, ACK or data, RST
KERNEL = """
    SYN_RECV     SYN_RECV     TIME_WAIT  ESTABLISHED  SYN_RECV
    ESTABLISHED  ESTABLISHED  FIN_WAIT   ESTABLISHED  CLOSE
    FIN_WAIT     SYN_RECV     FIN_WAIT   FIN_WAIT     CLOSE
    TIME_WAIT    SYN_RECV     TIME_WAIT  TIME_WAIT    CLOSE
    CLOSE        SYN_RECV     CLOSE      CLOSE        CLOSE
"""


@pytest.mark.parametrize(
    "row", [line.split() for line in KERNEL.strip().splitlines()], ids=lambda row: row[0]
)
def test_tcp_goes_through_its_states_as_in_the_kernel(row):
    state, *expected = row

    found = [after_tcp(State[state], flags).name for flags in (SYN, FIN | ACK, ACK | PSH | ECE, RST)]

    assert found == expected


@pytest.mark.parametrize(
    ("flags", "state"),
    [(SYN, State.SYN_RECV), (ACK, State.MIDSTREAM), (FIN | ACK, State.CLOSE), (RST, State.CLOSE)],
)
def test_first_packet_of_tcp_tells_where_it_stands(flags, state):
    assert after_tcp(State.NONE, flags) is state


def test_a_second_packet_proves_a_flow_that_was_met_in_midstream():
    assert after_tcp(State.MIDSTREAM, ACK) is State.ESTABLISHED
    assert after_tcp(State.MIDSTREAM, FIN | ACK) is State.FIN_WAIT


@pytest.mark.parametrize(
    ("flags", "state"),
    [(RST | SYN, State.CLOSE), (SYN | FIN, State.ESTABLISHED), (FIN | RST | ACK, State.CLOSE)],
)
def test_of_several_flags_rst_counts_before_syn_and_syn_before_fin(flags, state):
    assert after_tcp(State.ESTABLISHED, flags) is state


def test_a_second_datagram_proves_a_flow():
    first = after_datagram(State.NONE)

    assert (first, after_datagram(first), after_datagram(State.UDP)) == (State.DATAGRAM, State.UDP, State.UDP)


def test_timeouts_are_those_of_the_kernel_and_three_can_be_set():
    assert [timeouts()[state] for state in State] == [0, 60, 900, 120, 120, 10, 900, 300, 300]
    assert [timeouts(7440, 30, 20)[state] for state in State] == [0, 60, 7440, 30, 120, 10, 7440, 20, 20]


def test_no_state_is_both_unproven_and_closing():
    assert not UNPROVEN & CLOSING
    assert set(State) - UNPROVEN - CLOSING == {State.NONE, State.ESTABLISHED, State.UDP}
