"""Explains wrong usage of the command line in one sentence that says what to write instead."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

# click has no class of its own for these, at least in older releases.
_EXTRA = re.compile(r"Got unexpected extra arguments? \((?P<extra>.*)\)", re.DOTALL)
_NO_COMMAND = re.compile(r"No such command '(?P<name>.*?)'\.?", re.DOTALL)
_NO_VALUE = re.compile(r"Option '(?P<name>.*?)' does not take a value\.?", re.DOTALL)
_VALUE = re.compile(r"Option '(?P<name>.*?)' requires (an argument|\d+ arguments)\.?", re.DOTALL)
_OPTIONS = "[OPTIONS]"


def is_request_for_help(error: click.UsageError) -> bool:
    """Return whether *error* is the help of a group that was called without a command, in newer releases of click."""
    return type(error).__name__ == "NoArgsIsHelpError"


def explain(error: click.UsageError) -> str:
    """Return *error* as one sentence: what is wrong, and what to write instead."""
    ctx, message = error.ctx, error.format_message()
    if isinstance(error, click.MissingParameter):
        return _missing(error)
    if isinstance(error, click.BadParameter):
        return message.rstrip(".")  # the type of the parameter says what it accepts
    if found := _VALUE.fullmatch(message):
        return f"{found['name']} needs a value: write it after {found['name']}"
    if found := _NO_VALUE.fullmatch(message):
        return f"{found['name']} does not take a value: write {found['name']} alone"
    if ctx is None:
        return message.rstrip(".")
    help_of = f"`{ctx.command_path} --help`"
    if isinstance(error, click.NoSuchOption):
        likely = _likely(error.possibilities or (), f"{help_of} lists those that it has")
        return f"`{ctx.command_path}` does not have an option {error.option_name}: {likely}"
    if found := _NO_COMMAND.match(message):
        likely = _likely(getattr(error, "possibilities", None) or (), f"{help_of} lists those that it has")
        return f"`{ctx.command_path}` does not have a command {found['name']!r}: {likely}"
    if found := _EXTRA.fullmatch(message):
        return (
            f"`{_usage(ctx)}` does not take {found['extra']!r}: leave it out, or write its option before it; {help_of} "
            "lists the options"
        )
    return f"{message.rstrip('.')}: see {help_of}"


def _missing(error: click.MissingParameter) -> str:
    """Return the sentence for a parameter that was left out."""
    param, ctx = error.param, error.ctx
    if param is None or ctx is None:
        return error.format_message().rstrip(".")
    metavar = param.metavar or str(param.name).upper()
    if isinstance(param, click.Option):
        name = max(param.opts, key=len)
        return f"{name} is missing: add `{name} {metavar}` to `{ctx.command_path}`"
    return f"{metavar} is missing: write `{_usage(ctx)}`"


def _usage(ctx: click.Context) -> str:
    """Return the command with its arguments, without options."""
    pieces = [each for each in ctx.command.collect_usage_pieces(ctx) if each != _OPTIONS]
    return " ".join([ctx.command_path, *pieces])


def _likely(names: Sequence[str], otherwise: str) -> str:
    """Return a question for what was meant, if *names* are similar."""
    return f"did you mean {' or '.join(names)}?" if names else otherwise
