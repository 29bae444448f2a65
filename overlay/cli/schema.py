"""The option ``--json``: a command prints one document of overlay/documents.py, even without a result."""

from __future__ import annotations

import contextlib
import json

import click

from overlay.documents import tell_failure

# Ours
JSON_OPTION = "--json"
WANTS_JSON = "overlay.json"  # in the meta of click's context: --json was given
_TOLD = "overlay.told"  # and: the result was printed


def note_told() -> None:
    """Note that the command has printed its result as JSON, so that an error no longer replaces it."""
    if (ctx := click.get_current_context(silent=True)) is not None:
        ctx.meta[_TOLD] = True


def tell_error(ctx: click.Context, kind: str, sentence: str) -> None:
    """Print an error instead of the result, if JSON was asked for and no result was printed.

    *kind* is ``usage`` (an option or a file must be changed), ``no_agent`` or ``failed``.
    """
    if ctx.meta.get(WANTS_JSON) and not ctx.meta.get(_TOLD):
        ctx.meta[_TOLD] = True
        with contextlib.suppress(OSError):  # it has no reader; stderr has the sentence
            click.echo(json.dumps(tell_failure(kind, sentence)))
