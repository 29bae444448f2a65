"""Errors for a runtime: a code of the specification or of this plugin, and a sentence."""

from __future__ import annotations

# Specification: SPEC.md of CNI 1.1.0, "Error" in section 5
INCOMPATIBLE_VERSION = 1
UNSUPPORTED_FIELD = 2
UNKNOWN_CONTAINER = 3
INVALID_ENVIRONMENT = 4
IO_FAILURE = 5
UNDECODABLE = 6
INVALID_CONFIGURATION = 7
TRY_LATER = 11
NOT_AVAILABLE = 50  # for ADD
CUT_OFF = 51  # running containers may be cut off, too

# Ours
INTERFACE_EXISTS = 100
REFUSED = 101
BUG = 102


class PluginError(Exception):
    """An error that answers a question."""

    def __init__(self, code: int, message: str, details: str = "") -> None:
        super().__init__(message)
        self.code, self.message, self.details = code, message, details
