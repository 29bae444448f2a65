"""Exit codes: 0 done, 1 failed, 2 used or configured wrongly, 130 interrupted.

An error that a user can cause ends with one sentence on stderr; any other exception is a bug and shows its traceback.
"""

from __future__ import annotations

from typing import Any

import click

from overlay.cli.misuse import explain, is_request_for_help
from overlay.cli.schema import JSON_OPTION, WANTS_JSON, tell_error
from overlay.errors import ConfigError, HostError
from overlay.text import printable
from peers.errors import MemberError, StoreError, TableError

# Specification
SOMETHING_NAMED = 1  # of importers: something could not be carried over, and stderr names it
INTERRUPTED = 130  # 128 plus the number of SIGINT, as in shells


class Failure(click.ClickException):
    """A sentence that ends the command: it failed."""

    exit_code = 1

    def format_message(self) -> str:
        """Return the sentence in printable characters: it may quote a file or an agent."""
        return printable(self.message, keeps_lines=True)


class Misuse(Failure):
    """A sentence that ends the command: an option, or a file that it names, must be changed."""

    exit_code = 2  # also click's code for wrong usage


class CommandGroup(click.Group):
    """A group of commands that end as this module defines, listed in the order in which they were added."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click's signature
        """Return the names of the commands."""
        return list(self.commands)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the options of the group itself.  Raises Misuse for wrong ones."""
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            raise _misuse(error) from error

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command.  Raises click's exceptions for errors that a user can cause."""
        if JSON_OPTION in ctx.args:  # an unknown option ends the parsing before --json is seen
            ctx.meta[WANTS_JSON] = True
        try:
            return self._invoke(ctx)
        except click.ClickException as error:
            tell_error(ctx, _kind_of(error), error.format_message())
            raise

    def _invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            raise _misuse(error) from error
        except (ConfigError, TableError, MemberError) as error:
            raise Misuse(str(error)) from error
        except (HostError, StoreError) as error:
            raise Failure(str(error)) from error
        except KeyboardInterrupt:
            raise click.exceptions.Exit(INTERRUPTED) from None


def _misuse(error: click.UsageError) -> click.ClickException:
    """Return *error* as one sentence."""
    return error if is_request_for_help(error) else Misuse(explain(error))


def _kind_of(error: click.ClickException) -> str:
    """Return the kind of the error, for programs."""
    if error.exit_code == Misuse.exit_code:
        return "usage"
    return getattr(error.__cause__, "kind", "failed")
