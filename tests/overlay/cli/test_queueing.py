from __future__ import annotations

from overlay.cli.queueing import describe, read_queueing

BEFORE = {("eth0", "clsact"): 5, ("eth0", "fq_codel"): 7}


def test_filters_that_drop_while_a_peer_is_silent_are_named_with_what_shows_them():
    (finding,) = describe(BEFORE, BEFORE | {("eth0", "clsact"): 9}, ["tokyo"])

    assert finding.name == "tc_drops"
    assert finding.problem == (
        "filters of traffic control at eth0 (clsact) dropped 4 packets while tokyo did not answer"
    )
    assert "`tc -s filter show dev eth0 ingress` and `tc -s filter show dev eth0 egress`" in finding.remedy


def test_queue_that_drops_while_all_answer_is_a_notice():
    (finding,) = describe(BEFORE, BEFORE | {("eth0", "fq_codel"): 8}, [])

    assert finding.name == "tc_limits"
    assert finding.problem.startswith("a queue of traffic control at eth0 (fq_codel) dropped 1 packet while")
    assert "`tc -s qdisc show dev eth0`" in finding.remedy


def test_what_was_dropped_before_or_is_new_is_not_told():
    assert not list(describe(BEFORE, BEFORE | {("eth1", "tbf"): 9}, ["tokyo"]))


def test_devices_that_are_gone_are_left_out():
    assert all(name == "lo" for name, _ in read_queueing(["lo", "overlay-none"]))
