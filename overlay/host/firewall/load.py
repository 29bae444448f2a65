"""Make a program of the packet filters execute a script, as a whole or not at all."""

from __future__ import annotations

import os
import subprocess

from overlay.errors import HostError
from overlay.host.firewall.read import FOLDERS

# Ours
PATIENCE = 10.0  # seconds; nft takes 10 ms
SHOWN = 300  # characters of the program's output


class ScriptRefusedError(HostError):
    """The program refused the script; the text has its output."""


class MissingError(HostError):
    """The program is not installed."""


def load(command: tuple[str, ...], script: str, what: str = "rules") -> None:
    """Make *command*, a program with its arguments, execute *script*, which *what* describes.  Blocks.  Raises
    HostError.
    """
    name, *arguments = command
    path = next((each for folder in FOLDERS if os.access(each := f"{folder}/{name}", os.X_OK)), None)
    if path is None:
        raise MissingError(f"the program {name} is not installed")
    try:
        ended = subprocess.run(
            [path, *arguments],
            check=False,
            input=script,
            text=True,
            capture_output=True,
            timeout=PATIENCE,
            env={"PATH": ":".join(FOLDERS), "LC_ALL": "C"},
            cwd="/",
        )
    except OSError as error:
        raise HostError(
            f"{path} could not be started: {error.strerror}; see whether it can be run"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise HostError(f"{path} took more than {PATIENCE:g} s: see what keeps it from ending") from error
    if ended.returncode:
        said = " ".join(ended.stderr.split())[:SHOWN]
        raise ScriptRefusedError(f"{path} refused the {what} ({said})")
