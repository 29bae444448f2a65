"""Scripts: their exit status, their user, their environment, and how they are ended."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio

from overlay.services.checking import Result
from overlay.services.checks.script import run_as_nobody


def shell(text):
    return ("/bin/sh", "-c", text)


@pytest.mark.parametrize(
    ("status", "from_exit", "is_good", "weight"),
    [(0, False, True, None), (1, False, False, None), (7, False, False, None), (0, True, True, None),
     (1, True, False, None), (2, True, True, 0), (255, True, True, 253)],
)  # fmt: skip
def test_exit_status_is_the_verdict_and_perhaps_the_weight(check, status, from_exit, is_good, weight):
    result = check("script", command=shell(f"exit {status}"), weight_from_exit=from_exit)
    assert result == Result(is_good, f"/bin/sh ended with {status}", weight)


def test_script_that_ends_by_a_signal_is_bad(check):
    assert check("script", command=shell("kill -9 $$")) == Result(False, "/bin/sh was ended by SIGKILL")


def test_script_that_does_not_exist_is_bad(check):
    assert check("script", command=("/nonexistent",)) == Result(
        False, "/nonexistent cannot be started: it is missing: install it, or correct its path"
    )


@pytest.fixture
def everybody(tmp_path):
    """A directory that the user that runs a script may write to."""
    directory = Path("/tmp") / f"overlay-script-{os.getpid()}"
    directory.mkdir(exist_ok=True)
    directory.chmod(0o777)
    yield directory
    for each in directory.iterdir():
        each.unlink()
    directory.rmdir()


def test_script_knows_the_server_and_has_none_of_our_privileges(check, everybody):
    command = shell(f"(id -u; id -G; grep CapEff /proc/self/status; env) > {everybody}/told")
    assert check("script", command=command, port=8080).is_good
    told = (everybody / "told").read_text().split("\n")

    assert told[0] != "0"
    assert "0" not in told[1].split()
    assert told[2].split() == ["CapEff:", "0000000000000000"]
    for line in (
        "OVERLAY_SERVICE=web", "OVERLAY_SERVER=web2", "OVERLAY_PEER=paris", "OVERLAY_ADDRESS=127.0.0.1", "OVERLAY_PORT=8080",
    ):  # fmt: skip
        assert line in told
    assert not any(line.startswith(("HOME=", "HYPOTHESIS", "PYTHON")) for line in told)


@pytest.mark.slow
def test_script_that_hangs_is_ended_with_all_it_started(check, everybody):
    command = shell(f"sleep 100 & echo $! > {everybody}/pid; trap '' TERM; wait; sleep 100")
    for timeout in (0.5, 5, 50):
        assert check("script", command=command, timeout=timeout) == Result(
            False, f"no answer within {timeout} s"
        )
        if (everybody / "pid").exists() and (everybody / "pid").read_text():
            break  # otherwise it had no time to start anything
    assert not _is_alive(int((everybody / "pid").read_text()))


def _is_alive(pid):
    try:
        return "Z (zombie)" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_standard_input_is_what_was_given_even_if_it_is_not_read(everybody):
    def run(command, data):
        return trio.run(run_as_nobody, command, {"PATH": "/bin:/usr/bin"}, data)

    assert run(shell(f"cat > {everybody}/heard"), b"x" * 300_000) == 0
    assert (everybody / "heard").stat().st_size == 300_000
    assert run(shell("exit 3"), b"x" * 300_000) == 3


def test_script_without_anybody_to_run_as_says_whom_to_add(check, monkeypatch):
    if os.geteuid():
        pytest.skip("not root")
    monkeypatch.setattr("overlay.services.checks.script.USERS", ("overlay_script",))
    monkeypatch.setattr("pwd.getpwnam", {}.__getitem__)
    assert check("script", command=shell("exit 0")) == Result(
        False, "/bin/sh cannot be started: there is no user to run it as; add the user overlay_script"
    )
