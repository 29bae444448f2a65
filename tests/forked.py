"""Run programs of this project in a separate process without importing them again: a fork of the tests runs them."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import tempfile
import traceback
import warnings
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def run(
    program: Callable[[], object], *arguments: str, cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run *program* with *arguments* in sys.argv, in a separate process; return its exit code and its output."""
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # the threads of the tests are idle
            pid = os.fork()
        if pid == 0:
            _become(program, arguments, cwd, environment, (output.fileno(), errors.fileno()))
        try:
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        except BaseException:  # the test's time is over
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise
        output.seek(0)
        errors.seek(0)
        return subprocess.CompletedProcess(list(arguments), code, output.read(), errors.read())


def _become(
    program: Callable[[], object],
    arguments: tuple[str, ...],
    cwd: Path | None,
    environment: dict[str, str],
    outputs: tuple[int, int],
) -> NoReturn:
    """Run as the child process: nothing of the tests continues here, whatever happens."""
    code: object = 1
    try:
        for number in (signal.SIGALRM, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number, descriptor in zip((1, 2), outputs, strict=True):
            os.dup2(descriptor, number)
        sys.stdout = os.fdopen(1, "w", closefd=False)
        sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
        logging.getLogger().handlers.clear()
        warnings.resetwarnings()
        sys.argv[1:] = arguments
        os.environ.update(environment)
        if cwd is not None:
            os.chdir(cwd)
        code = program()
    except SystemExit as error:
        code = error.code
    except BaseException:  # noqa: BLE001  as Python ends with any
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 0 if code is None else 1)
