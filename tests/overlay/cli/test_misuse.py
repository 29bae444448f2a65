"""Wrong usage is answered with one sentence that says what to write instead."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ("keygen", "x"),
            (
                "`main keygen` does not take 'x': leave it out, or write its option before it; `main keygen --help` lists the "
                "options"
            ),
        ),
        (
            ("ping", "tokyo", "a", "b"),
            (
                "`main ping PEER` does not take 'a b': leave it out, or write its option before it; `main ping --help` lists "
                "the options"
            ),
        ),
        (("ping",), "PEER is missing: write `main ping PEER`"),
        (("--bogus",), "`main` does not have an option --bogus: `main --help` lists those that it has"),
        (("status", "--jsn"), "`main status` does not have an option --jsn: did you mean --json?"),
        (("bogus",), "`main` does not have a command 'bogus': `main --help` lists those that it has"),
        (("cni", "x"), "`main cni` does not have a command 'x': `main cni --help` lists those that it has"),
        (("status", "--interface"), "--interface needs a value: write it after --interface"),
        (("status", "--json=3"), "--json does not take a value: write --json alone"),
        (("completion", "x"), "Invalid value for 'SHELL': 'x' is not one of 'bash', 'zsh', 'fish'"),
        (("capture", "-w", ""), "Invalid value for '-w' / '--write': it is empty: write a path"),
        (("check", "--peers", ""), "Invalid value for '--peers': it is empty: write a path"),
        (("rotate-key", "--key", ""), "Invalid value for '--key': it is empty: write a path"),
        (("rotate-key", "--key", "."), ". is a directory: name another file with --key"),
    ],
)
def test_wrong_usage_is_one_sentence_with_its_remedy(overlay, arguments, sentence):
    result = overlay(*arguments)

    assert (result.exit_code, result.stdout, result.stderr) == (2, "", f"Error: {sentence}\n")


@pytest.mark.parametrize("arguments", [(), ("network",)])
def test_group_without_a_command_shows_its_help(overlay, arguments):
    result = overlay(*arguments)

    assert result.output.startswith("Usage: ")
    assert "Commands:" in result.output
