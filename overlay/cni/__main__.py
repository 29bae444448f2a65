"""overlay-cni: one question of a container runtime, one answer, and the end."""

from __future__ import annotations

import json
import os
import sys

from overlay.cni.errors import BUG, PluginError
from overlay.cni.question import SIZE, VERSIONS, Question, read_object

TYPE_CHECKING = False  # typing takes a while to load
if TYPE_CHECKING:
    from typing import Any


def main() -> int:
    """Answer on standard output; return the exit code.  Errors are JSON, too."""
    version = VERSIONS[-1]
    try:
        configuration = sys.stdin.buffer.read(SIZE)
        if os.environ.get("CNI_COMMAND") == "VERSION":  # with anything in the other variables
            return _tell({"cniVersion": _asked_version(configuration), "supportedVersions": list(VERSIONS)})
        version = _asked_version(configuration)
        from overlay.cni.answer import answer  # noqa: PLC0415  VERSION, asked before each ADD, needs none of it

        found = answer(Question(os.environ, configuration))
    except PluginError as error:
        return _fail(version, error.code, error.message, error.details)
    except Exception as error:  # noqa: BLE001  the runtime reads nothing but JSON
        return _fail(version, BUG, "overlay-cni failed, which is a bug", f"{type(error).__name__}: {error}")
    return 0 if found is None else _tell(found)


def _asked_version(configuration: bytes) -> str:
    """Return the version of the answer: that of the question, if it is supported."""
    try:
        asked = read_object(configuration).get("cniVersion")
    except PluginError:
        asked = None
    return asked if asked in VERSIONS else VERSIONS[-1]


def _tell(found: dict[str, Any]) -> int:
    sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.flush()
    return 0


def _fail(version: str, code: int, message: str, details: str) -> int:
    told: dict[str, Any] = {"cniVersion": version, "code": code, "msg": message}
    if details:
        told["details"] = details
    _tell(told)
    return 1


if __name__ == "__main__":
    sys.exit(main())
