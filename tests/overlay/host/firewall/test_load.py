"""Scripts that programs execute, refuse, or never finish."""

from __future__ import annotations

import pytest

from overlay.errors import HostError
from overlay.host.firewall import load as module
from overlay.host.firewall.load import MissingError, ScriptRefusedError, load


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Make a program called "it" from a shell script."""
    monkeypatch.setattr(module, "FOLDERS", (str(tmp_path), "/usr/bin", "/bin"))

    def make(script, mode=0o755):
        path = tmp_path / "it"
        path.write_text(script)
        path.chmod(mode)

    return make


def test_program_reads_the_script_with_its_arguments(program, tmp_path):
    program(f'#!/bin/sh\necho "$@" > {tmp_path}/said; cat >> {tmp_path}/said\n')

    load(("it", "-f", "-"), "rules\n")

    assert (tmp_path / "said").read_text() == "-f -\nrules\n"


def test_refusal_has_what_the_program_said_on_one_line(program):
    program("#!/bin/sh\nprintf 'line 1\\n  line 2\\n' >&2; exit 3\n")

    with pytest.raises(ScriptRefusedError, match=r"it refused the rules \(line 1 line 2\)$"):
        load(("it",), "")


def test_what_is_missing_is_named(program):
    with pytest.raises(MissingError, match=r"^the program no-such-program is not installed$"):
        load(("no-such-program",), "")


def test_program_that_does_not_end_is_ended(program, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE", 0.2)
    program("#!/bin/sh\nexec sleep 60\n")

    with pytest.raises(HostError, match=r"took more than 0\.2 s"):
        load(("it",), "")


def test_what_cannot_be_started_is_told(program):
    program("no program at all\0")

    with pytest.raises(HostError, match="could not be started"):
        load(("it",), "")
