"""The command line of overlay-wg, the same as that of wireguard-go: ``overlay-wg [-f] INTERFACE``.

It returns once `wg` can use the interface, with the node in the background; with -f, when the node ends.  The
environment has the same meaning as for wireguard-go: WG_PROCESS_FOREGROUND=1 is -f, and LOG_LEVEL is verbose, debug,
error or silent.
"""

from __future__ import annotations

import os
import re
import sys

from overlay.wg.background import go_on_in_background

DONE, FAILED, MISUSED = 0, 1, 2
USAGE = """Usage: overlay-wg [-f | --foreground] INTERFACE

Makes the WireGuard interface INTERFACE, for `wg` to configure and wg-quick to set up:

    WG_QUICK_USERSPACE_IMPLEMENTATION=overlay-wg wg-quick up wg0

It goes into the background once `wg` can use the interface, and ends when that is removed.
"""
LOG_LEVELS = {"verbose": "debug", "debug": "debug", "error": "error", "silent": "critical"}


def main() -> int:
    """Run the command line; return its exit code."""
    arguments = sys.argv[1:]
    if arguments in (["-h"], ["--help"]):
        sys.stdout.write(USAGE)
        return DONE
    if arguments == ["--version"]:
        from importlib.metadata import version  # noqa: PLC0415  as for all below: it takes time, and nothing else needs it

        sys.stdout.write(f"overlay-wg {version('overlay')}\n")
        return DONE
    is_foreground = os.environ.get("WG_PROCESS_FOREGROUND") == "1"
    if arguments[:1] in (["-f"], ["--foreground"]):
        is_foreground, arguments = True, arguments[1:]
    if wrong := _describe_misuse(arguments):
        sys.stderr.write(f"overlay-wg: {wrong}\n\n{USAGE}")
        return MISUSED
    wanted = os.environ.get("LOG_LEVEL", "")
    if wanted and wanted not in LOG_LEVELS:
        sys.stderr.write(f"overlay-wg: LOG_LEVEL={wanted!r} is ignored: it can be {', '.join(LOG_LEVELS)}\n")
    level = LOG_LEVELS.get(wanted, "info")
    (interface,) = arguments
    if is_foreground:
        return _run(interface, level, is_foreground=True)
    return go_on_in_background(lambda: _run(interface, level, is_foreground=False))


def _describe_misuse(arguments: list[str]) -> str | None:
    """Return what is wrong with the arguments other than -f; None if nothing is."""
    for each in arguments:
        if each.startswith("-"):
            return f"there is no option {each!r} here; -f comes once, before the interface"
    if not arguments:
        return "the name of the interface is missing, such as wg0"
    if len(arguments) > 1:
        return f"only one interface can be made at a time: leave out {' '.join(map(repr, arguments[1:]))}"
    return None


def _run(interface: str, level: str, *, is_foreground: bool) -> int:
    """Run the node until it ends; return an exit code.  An error that prevents its start is one sentence on stderr."""
    from overlay import lifecycle  # noqa: PLC0415
    from overlay.errors import ConfigError, OverlayError  # noqa: PLC0415
    from overlay.host.sockets.uapi_socket import DIRECTORY  # noqa: PLC0415
    from overlay.records import logs  # noqa: PLC0415
    from overlay.starting.bare import bare_options  # noqa: PLC0415

    try:
        lifecycle.run(
            bare_options(interface, DIRECTORY),
            level,
            output=None if is_foreground else logs.to_syslog("overlay-wg"),
        )
    except OverlayError as error:
        # The option of `overlay up` is an argument here.
        problem = re.sub("another (with )?--interface", "another name", str(error))
        sys.stderr.write(f"overlay-wg: {problem}\n")
        return MISUSED if isinstance(error, ConfigError) else FAILED
    return DONE


if __name__ == "__main__":
    sys.exit(main())
