"""How a command ends: 0 done, 1 failed, 2 used or configured wrongly, 130 interrupted.

Whatever a user can cause ends with one sentence on stderr; any other exception is a bug and shows its traceback.
"""

from __future__ import annotations

from typing import Any

import click

from overlay.errors import ConfigError, HostError
from peers.errors import StoreError, TableError

# Specification
FAILED = 1
WRONG = 2  # also what click gives for wrong usage
INTERRUPTED = 130  # 128 and the number of SIGINT, as shells say it


class Failure(click.ClickException):
    """A sentence that ends the command with *exit_code*."""

    def __init__(self, sentence: str, exit_code: int = FAILED) -> None:
        super().__init__(sentence)
        self.exit_code = exit_code


class Commands(click.Group):
    """A group of commands that end as this module says."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command.  Raises click's exceptions for what a user can cause."""
        try:
            return super().invoke(ctx)
        except (ConfigError, TableError) as error:
            raise Failure(str(error), WRONG) from error
        except (HostError, StoreError) as error:
            raise Failure(str(error)) from error
        except KeyboardInterrupt:
            raise click.exceptions.Exit(INTERRUPTED) from None
