from __future__ import annotations

import dataclasses

import pytest

from overlay.cli.agents import PeerStatus, read_status
from overlay.cli.wellness import judge_node, judge_peer, judge_peers
from overlay.status import STATES
from tests.overlay.cli.fakes import STATUS, peer_status

NAMES = {field.name for field in dataclasses.fields(PeerStatus)}


def peer(name="tokyo", **fields):
    return PeerStatus(**{key: value for key, value in peer_status(name, **fields).items() if key in NAMES})


@pytest.mark.parametrize("state", STATES)
def test_peer_is_well_in_states_in_which_packets_pass(state):
    assert judge_peer(peer(state=state), None).is_well is (state in {"up", "idle", "unencrypted"})


def test_peer_of_which_nothing_is_known_is_not_well():
    assert not judge_peer(peer(state=None, rx_bytes=None), None).is_well
    assert not judge_peer(peer(state="unencrypted", rx_bytes=None), None).is_well


def test_first_note_on_a_peer_in_trouble_is_the_reason():
    judged = judge_peer(peer(state="unreachable", notes=["see to it", "or to that"]), None)

    assert judged.sentence == "see to it"


@pytest.mark.parametrize(
    ("heard", "is_well", "said"),
    [
        (None, False, "nothing has arrived from tokyo yet"),
        (30.0, True, "tokyo is idle, the last message arrived 30 s ago"),
        (30.5, False, "tokyo has been silent for 30 s, more than 30 s"),
    ],
)
def test_peer_that_was_silent_for_too_long_is_not_well_whatever_its_state(heard, is_well, said):
    judged = judge_peer(peer(state="idle", last_received=heard), 30.0)

    assert (judged.is_well, judged.sentence) == (is_well, said)


def test_one_of_several_peers_that_is_not_well_is_the_reason():
    assert judge_peers([peer(state="up"), peer("rome", state="silent")], None).sentence == "rome is silent"


def node(*peers, **fields):
    rows = [peer_status(name, state=state, last_received=None) for name, state in peers]
    return read_status("overlay0", {"status": STATUS | {"peers": rows} | fields})


@pytest.mark.parametrize(
    ("status", "is_well", "said"),
    [
        (node(), True, "overlay0 is well, and has no other peers"),
        (node(("a", "up"), ("b", "unreachable")), True, "overlay0 is well, and so are 1 of 2 peers"),
        (node(("a", "idle")), True, "overlay0 is well, and nothing has arrived from its only peer yet"),
        (
            node(("a", "idle"), ("b", "idle")),
            True,
            "overlay0 is well, and nothing has arrived from any of 2 peers yet",
        ),
        (node(("a", "up"), ("b", "idle")), True, "overlay0 is well, and so are 1 of 2 peers"),
        (node(("a", "silent"), ("b", "unreachable")), False, "none of 2 peers is well: a is silent"),
        (node(services={"up": 3, "elsewhere": 1}), True, "overlay0 is well, and has no other peers"),
        (
            node(services={"sorry": 1}),
            False,
            "of 1 service, 1 sorry: `overlay services` says why",
        ),
        (node(("a", "up"), key_error="wg took it away"), False, "wg took it away"),
        (
            node(reload_error="line 3: wrong"),
            True,
            (
                "overlay0 is well, and has no other peers, but the current peers file and keys are not in effect: line "
                "3: wrong"
            ),
        ),
    ],
)
def test_node_is_well_while_some_peer_is_and_no_service_lacks_servers(status, is_well, said):
    judged = judge_node(status, None, is_complete=True)

    assert (judged.is_well, judged.sentence) == (is_well, said)


def test_node_whose_forwarder_does_not_answer_is_not_well():
    judged = judge_node(node(("a", "up"), notes=["it hangs"]), None, is_complete=False)

    assert (judged.is_well, judged.sentence) == (False, "it hangs")
