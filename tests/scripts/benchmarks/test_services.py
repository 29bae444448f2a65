"""scripts/bench services: missing programs are named, and the output of programs is read correctly."""

from __future__ import annotations

import pytest

from scripts.benchmarks import proxies, services, takeover

TOLD = """\
Running 3s test @ http://203.0.113.80/
  1 threads and 256 connections
  7081 requests in 3.00s, 1.05MB read
{errors}Requests/sec:   2360.31
Transfer/sec:    358.10KB
"""


def test_rate_of_wrk_is_that_of_requests():
    assert proxies.counted(TOLD.format(errors="")) == (2360.31, 7081, "")


def test_errors_of_wrk_are_told():
    errors = "  Socket errors: connect 0, read 3, write 0, timeout 2\n"

    told = proxies.counted(TOLD.format(errors=errors))

    assert told == (2360.31, 7081, "connect 0, read 3, write 0, timeout 2")


def test_wrk_that_reached_nobody_has_no_rate():
    assert proxies.counted("unable to connect to 203.0.113.80:http Connection refused\n") == (0.0, 0, "")


def test_programs_that_are_missing_are_named_with_their_packages(monkeypatch, capsys):
    monkeypatch.setenv("PATH", "")

    with pytest.raises(SystemExit) as ended:
        services.needed(["path", "connections"])

    assert ended.value.code == 2
    assert "missing: iperf3 wrk nginx-light; install them" in capsys.readouterr().err


def test_failover_takes_no_program():
    assert services.needed(["failover"]) == {}


def test_time_of_a_failure_is_that_of_the_last_question_with_its_answer():
    answers = [(9.0, ""), (10.0, "web1"), (10.2, ""), (10.3, "web1"), (10.5, ""), (10.6, "web1")]

    assert takeover.last(answers, 10.0, "") == pytest.approx(500)
    assert takeover.last(answers, 10.55, "") == 0
