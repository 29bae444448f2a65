"""``overlay man``: manual pages, made from the commands and their help."""

from __future__ import annotations

import inspect
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from overlay.cli.exits import Failure, Misuse
from overlay.cli.options import PathName
from overlay.cli.output import show
from overlay.host import advice

if TYPE_CHECKING:
    from collections.abc import Iterator

# Ours
SECTION = 1
DIRECTORY = Path("/usr/local/share/man/man1")
_UNWRAPPED = "\b"  # click: the next paragraph keeps its lines

# groff_man(7)
_HEADING, _PARAGRAPH, _TAGGED, _AS_IS, _FILLED = ".SH", ".PP", ".TP", ".nf", ".fi"


def _complete_command(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the commands that begin with *incomplete*, in the group named by the words before it."""
    group = ctx.find_root().command
    for word in ctx.params.get("name") or ():
        if not isinstance(group, click.Group) or word not in group.commands:
            return []
        group = group.commands[word]
    if not isinstance(group, click.Group):
        return []
    return [CompletionItem(name) for name in group.list_commands(ctx) if name.startswith(incomplete)]


@click.command("man")
@click.option(
    "--directory",
    type=PathName(file_okay=False),
    metavar="DIRECTORY",
    help="Write all pages to this directory, such as /usr/local/share/man/man1.",
)
@click.argument("name", metavar="[COMMAND]...", nargs=-1, shell_complete=_complete_command)
@click.pass_context
def command(ctx: click.Context, directory: Path | None, name: tuple[str, ...]) -> None:
    """Print the manual page of a COMMAND, or install those of all commands.

    `overlay man ping | man -l -` shows one; `overlay man --directory /usr/local/share/man/man1` has man find all.
    """
    found = dict(pages(ctx.find_root().command))
    if directory is None:
        wanted = " ".join(("overlay", *name))
        if wanted not in found:
            raise Misuse(f"there is no command `{wanted}`: `overlay --help` lists them")
        show(found[wanted].rstrip("\n"))
        return
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for title, text in found.items():
            (directory / file_of(title)).write_text(text)
    except OSError as error:
        raise Failure(
            f"{os.fspath(directory)} cannot be written: {error.strerror}; {advice.after(error)}"
        ) from error
    show(f"{len(found)} pages are in {directory}: see `man overlay`")


def file_of(title: str) -> str:
    """Return the name of the file with the page *title*."""
    return f"{title.replace(' ', '-')}.{SECTION}"


def pages(root: click.Command) -> Iterator[tuple[str, str]]:
    """Yield the title and the text of each command's page; the title is the full name of the command."""

    def below(made: click.Command, context: click.Context) -> Iterator[tuple[str, str]]:
        yield context.command_path, page(made, context)
        if isinstance(made, click.Group):
            for name in made.list_commands(context):
                each = made.commands[name]
                yield from below(
                    each, click.Context(each, info_name=name, parent=context, **each.context_settings)
                )

    yield from below(root, click.Context(root, info_name="overlay", **root.context_settings))


def page(made: click.Command, context: click.Context) -> str:
    """Return the manual page of one command (man(7))."""
    title = context.command_path
    name = title.replace(" ", "-")
    lines = [
        f'.TH "{_text(name.upper())}" "{SECTION}" "" "overlay" "overlay"',
        f"{_HEADING} NAME",
        f"{_text(name)} \\- {_text(_summary(made))}",
        f"{_HEADING} SYNOPSIS",
        f"\\fB{_text(title)}\\fR {_text(' '.join(made.collect_usage_pieces(context)))}",
        f"{_HEADING} DESCRIPTION",
        *_paragraphs(inspect.cleandoc(made.help or "")),
    ]
    given = (each for each in made.get_params(context) if isinstance(each, click.Option))
    options = [record for each in given if (record := each.get_help_record(context))]
    if options:
        lines.append(f"{_HEADING} OPTIONS")
        for spelling, meaning in options:
            lines += [_TAGGED, f"\\fB{_text(spelling)}\\fR", _text(" ".join(meaning.split()))]
    if isinstance(made, click.Group):
        lines.append(f"{_HEADING} COMMANDS")
        for each in made.list_commands(context):
            page_name = f"{name}-{each}"
            lines += [_TAGGED, f"\\fB{_text(page_name)}\\fR({SECTION})", _text(_summary(made.commands[each]))]
    if made.epilog:
        lines += [f"{_HEADING} EXAMPLES", *_paragraphs(inspect.cleandoc(made.epilog))]
    lines += [f"{_HEADING} EXIT STATUS", *_exit_codes()]
    if context.parent is not None:
        parent = context.parent.command_path.replace(" ", "-")
        lines += [f"{_HEADING} SEE ALSO", f"\\fB{_text(parent)}\\fR({SECTION})"]
    return "\n".join(lines) + "\n"


def _exit_codes() -> Iterator[str]:
    for code, meaning in (
        ("0", "done"),
        ("1", "failed"),
        ("2", "wrong usage, or a wrong file"),
        ("130", "interrupted"),
    ):
        yield from (_TAGGED, f"\\fB{code}\\fR", meaning)


def _summary(made: click.Command) -> str:
    return " ".join(made.get_short_help_str(limit=1000).split()).rstrip(".")


def _paragraphs(text: str) -> Iterator[str]:
    is_first = True
    for paragraph in re.split(r"\n\s*\n", text):
        lines = paragraph.split("\n")
        is_kept = lines[0].strip() == _UNWRAPPED
        lines = [line for line in lines if line.strip() and line.strip() != _UNWRAPPED]
        if not lines:
            continue
        if not is_first:
            yield _PARAGRAPH
        is_first = False
        if is_kept:
            yield from (_AS_IS, *map(_text, lines), _FILLED)
        else:
            yield _text(" ".join(line.strip() for line in lines))


def _text(text: str) -> str:
    """Return *text* escaped for roff: backslashes, minus signs, and lines that roff would take for requests."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace('"', "\\(dq").replace("^", "\\(ha")
    escaped = escaped.replace("~", "\\(ti").replace("`", "\\(ga")
    escaped = "".join(each if each.isascii() else f"\\[u{ord(each):04X}]" for each in escaped)
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped
