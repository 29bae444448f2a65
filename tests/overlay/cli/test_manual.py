"""Manual pages."""

from __future__ import annotations

import shutil
import subprocess

import click
import pytest
from click.testing import CliRunner

from overlay.cli import main
from overlay.cli.manual import file_of, page, pages

PAGES = dict(pages(main))


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
def test_groff_has_nothing_to_say_about_any_page():
    text = "".join(PAGES.values())

    done = subprocess.run(
        ["groff", "-man", "-ww", "-Tutf8"],
        input=text,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )

    assert done.stderr == ""
    assert len(done.stdout) > len(text) / 2


def test_every_command_has_a_page_with_all_its_options():
    for name, command in main.commands.items():
        text = PAGES[f"overlay {name}"].replace("\\-", "-")
        for option in command.params:
            if isinstance(option, click.Option) and not option.hidden:
                assert option.opts[-1] in text


def test_text_is_not_a_request_of_roff():
    @click.command("x", help=".so /etc/passwd\n\n'ft \\fB -- a \\b c\n\n\b\n  kept\n.lines\n")
    def command():
        pass

    text = page(command, click.Context(command, info_name="x"))

    assert "\n\\&.so /etc/passwd\n" in text
    assert "\n\\&'ft \\efB" in text
    assert ".nf\n  kept\n\\&.lines\n.fi" in text


def test_page_is_printed_or_all_are_written(tmp_path):
    runner = CliRunner()

    assert runner.invoke(main, ["man", "ping"]).output == PAGES["overlay ping"]
    assert runner.invoke(main, ["man", "service", "install"]).output == PAGES["overlay service install"]
    assert runner.invoke(main, ["man", "nothing"]).exit_code == 2
    done = runner.invoke(main, ["man", "--directory", str(tmp_path / "man1")])
    assert done.exit_code == 0
    assert {path.name for path in (tmp_path / "man1").iterdir()} == set(map(file_of, PAGES))
    assert (
        "cannot be written: No such file or directory; see what is in its place"
        in runner.invoke(main, ["man", "--directory", "/proc/x"]).output
    )
