"""Colours for text that needs attention, applied after it was made printable, so that they affect neither widths nor
names.
"""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING

from overlay.troubles.peers import BEGINNING, STATES

if TYPE_CHECKING:
    from collections.abc import Mapping

# Specification: ECMA-48 section 8.3.117, select graphic rendition
_RED, _GREEN, _YELLOW, _BOLD, _PLAIN = "\033[31m", "\033[32m", "\033[33m", "\033[1m", "\033[0m"

_LABELS = {"not loaded": _RED, "note": _YELLOW, "stranger": _YELLOW}
_STATES = {"up": _GREEN, BEGINNING: _YELLOW, **dict.fromkeys(STATES, _RED)}
_LEVELS = {"WARNING": _YELLOW, "ERROR": _RED}
_EVENT = re.compile(rf"^(\S+ )({'|'.join(_LEVELS)})(?= )")
_LABEL = re.compile(rf"^({'|'.join(_LABELS)})(?= {{2,}})")
_ROW = re.compile(rf"^(\S+ +)({'|'.join(_STATES)})(?= |$)")
_HEADER = re.compile(r"^NAME +STATE\b")
_ONE_PEER = re.compile(rf"^(state +)({'|'.join(_STATES)})(?= )")


def are_wanted(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether the result goes to a terminal that shows colours, and the user wants them (no-color.org)."""
    return (
        sys.stdout.isatty() and not environment.get("NO_COLOR") and environment.get("TERM", "dumb") != "dumb"
    )


def paint_status(text: str) -> str:
    """Return *text*, the status of a node or of a peer, with troubles and states in colour."""
    painted, is_table = list[str](), False
    for line in text.split("\n"):
        if _HEADER.match(line):
            is_table = True
            painted.append(f"{_BOLD}{line}{_PLAIN}")
        elif is_table:
            painted.append(_ROW.sub(_paint_state, line))
        else:
            label = _LABEL.sub(lambda match: f"{_LABELS[match[1]]}{match[1]}{_PLAIN}", line)
            painted.append(_ONE_PEER.sub(_paint_state, label))
    return "\n".join(painted)


def paint_event(text: str) -> str:
    """Return *text*, a line of the log, with a level that needs attention in colour."""
    return _EVENT.sub(lambda match: f"{match[1]}{_LEVELS[match[2]]}{match[2]}{_PLAIN}", text)


def _paint_state(match: re.Match[str]) -> str:
    return f"{match[1]}{_STATES[match[2]]}{match[2]}{_PLAIN}"
