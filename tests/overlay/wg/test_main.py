"""The command line of overlay-wg."""

from __future__ import annotations

import pytest

from overlay import agent  # noqa: F401  what main() loads, loaded once
from overlay.wg.__main__ import main
from tests import forked


def run(*arguments, **environment):
    return forked.run(main, *arguments, **environment)


def test_help_and_version_are_printed():
    assert run("--help").stdout.startswith("Usage: overlay-wg [-f | --foreground] INTERFACE\n")
    assert run("--version").stdout.startswith("overlay-wg ")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "the name of the interface is missing"),
        (("a", "b"), "leave out 'b'"),
        (("-x", "a"), "there is no option '-x'"),
        (("-f",), "the name of the interface is missing"),
        (("-f", "-f"), "there is no option '-f' here; -f comes once"),
        (("a", "-f"), "-f comes once, before the interface"),
    ],
)
def test_wrong_use_is_told_in_a_sentence_before_the_usage(arguments, said):
    done = run(*arguments)

    assert (done.returncode, done.stdout) == (2, "")
    first, _, usage = done.stderr.partition("\n\n")
    assert first.startswith("overlay-wg: ")
    assert said in first
    assert usage.startswith("Usage:")


@pytest.mark.parametrize("name", ["..", "all"])
def test_name_that_linux_has_another_meaning_for_is_refused_for_that(name):
    assert "Linux has another meaning for it" in run("-f", name).stderr


def test_level_of_the_log_that_there_is_not_is_told_of():
    said = run("-f", "bad/name", LOG_LEVEL="loud").stderr

    assert "LOG_LEVEL='loud' is ignored: it can be verbose, debug, error, silent\n" in said
    assert "LOG_LEVEL" not in run("-f", "bad/name", LOG_LEVEL="silent").stderr


@pytest.mark.parametrize("options", [(), ("-f",)])
def test_name_that_none_can_have_is_refused_in_one_sentence(options):
    done = run(*options, "bad/name")

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("overlay-wg: 'bad/name' cannot name an interface")
    assert len(done.stderr.splitlines()) == 1
