"""What this program asks systemd to do: enable, start and remove units."""

from __future__ import annotations

import subprocess

from overlay.errors import HostError

# Ours
TIMEOUT = 120.0  # seconds: a start waits until the agent is ready


def systemctl(*arguments: str, check: bool = True) -> str:
    """Return the output of ``systemctl`` as one line.  Raises HostError if it fails, unless *check* is false."""
    command = ["systemctl", *arguments]
    shown = " ".join(command)
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=TIMEOUT, check=False
        )
    except FileNotFoundError as error:
        raise HostError(
            "there is no systemctl: this host is not run by systemd, so have its service manager run `overlay up`"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise HostError(f"`{shown}` took longer than {TIMEOUT:g} s: see `journalctl -e`") from error
    except OSError as error:
        raise HostError(f"systemctl cannot be started: {error.strerror}") from error
    if check and done.returncode != 0:
        said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise HostError(f"`{shown}` failed: {said}")
    return " ".join(done.stdout.split())
