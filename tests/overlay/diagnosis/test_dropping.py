from __future__ import annotations

from overlay.diagnosis.dropping import NAMED, check_dropping, check_floods
from overlay.reasons import REASONS


def test_reason_here_that_grows_is_found_with_its_sentence():
    (finding,) = check_dropping({"tun_full": 5}, {"tun_full": 12}, 2.9)

    assert finding.name == "dropping"
    assert finding.problem.startswith(
        "7 packets were dropped in the last 3 s, each of which arrived faster than"
    )
    assert finding.problem.endswith("(tun_full)")


def test_what_stands_still_or_lies_elsewhere_is_not_found():
    before = {"tun_full": 5, "no_peer": 1, "replayed": 1}

    assert not list(
        check_dropping(before, {"tun_full": 5, "no_peer": 100, "replayed": 100, "nonsense": 7}, 3.0)
    )


def test_what_another_finding_tells_is_not_told_twice():
    assert not list(check_dropping({}, {"send_refused": 5, "no_endpoint": 5}, 3.0))


def test_few_are_told():
    assert len(list(check_dropping({}, dict.fromkeys(REASONS, 100), 3.0))) <= NAMED


def test_peer_of_which_much_was_dropped_early_is_named_with_its_rate():
    (finding,) = check_floods({"rome": [10, 100]}, {"rome": [90_010, 30_100]}, 3.0)

    assert (finding.name, finding.peer) == ("peer_floods", "rome")
    assert "transport_auth" in (finding.remedy or "")  # what was dropped unopened may be forged
    assert finding.problem.startswith("rome sends about 40000 packets a second, more than its share")
    assert "90000 were dropped in the last 3 s" in finding.problem


def test_peer_of_which_nothing_more_was_dropped_is_not_named():
    assert not list(check_floods({"rome": [10, 100]}, {"rome": [10, 30_100]}, 3.0))


def test_rate_of_a_peer_of_which_nothing_was_dropped_before_is_a_lower_bound():
    (finding,) = check_floods({}, {"rome": [3_000, 500_000]}, 3.0)

    assert finding.problem.startswith("rome sends at least 1000 packets a second, more than its share")
