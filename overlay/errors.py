"""The errors, by who must act.

OverlayError
├── PacketError    someone sent what we refuse; dropped and counted by its reason, never leaves the core
│   ├── UnknownInitiatorError    an initiation by a key that no peer has
│   └── ReplayedInitiationError  an initiation of a peer that is no newer than the last
├── ConfigError    an operator must edit a file or an option; exit 2
│   ├── NotHereError    no endpoint of a peer without a key is an address of this host
│   └── KeyFileError    a file with a private or preshared key is missing or wrong
├── HostError      the kernel or the machine refused; exit 1
│   ├── NoAgentError    no agent answers on the control socket (host/control.py)
│   └── WaitingError    an agent answers that is not a node yet (host/control.py)
└── ResolveError   a name could not be looked up; it is tried again (resolver.py)

Not in the tree, because the caller answers them at once and no person sees them:
ForwarderGoneError (supervision/forwarder.py), StoppedError (ending.py), UnreadError (host/firewall), NotAbleError
(cli/in_band.py).
"""

from __future__ import annotations

from overlay.reasons import REASONS


class OverlayError(Exception):
    """Any error that this package raises on purpose.  Its text is one sentence for people."""


class PacketError(OverlayError):
    """A message that was refused.  *reason* is the name under which it is counted, such as ``transport_short``."""

    def __init__(self, reason: str) -> None:
        assert reason in REASONS, reason
        super().__init__(reason)
        self.reason = reason


class UnknownInitiatorError(PacketError):
    """An initiation that claims *public_key* (32 bytes; nothing proves it), which is not a peer's."""

    def __init__(self, public_key: bytes) -> None:
        super().__init__("initiation_unknown_peer")
        self.public_key = public_key


class ReplayedInitiationError(PacketError):
    """An authentic initiation of the peer *number* whose timestamp is not later than that of an accepted one.

    *behind* are the seconds between the two: 0 for the accepted message itself.
    """

    def __init__(self, number: int, behind: float) -> None:
        super().__init__("initiation_replayed")
        self.number, self.behind = number, behind


class ConfigError(OverlayError):
    """An option or a file that an operator must change."""


class NotHereError(ConfigError):
    """No endpoint of a peer without a key is an address of this host, which may get one later."""


class KeyFileError(ConfigError):
    """A file with a private or preshared key that is missing, cannot be read, or has no key.

    *problem* says which of these, *remedy* what to do.
    """

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(f"{problem}{'; ' if ': ' in problem else ': '}{remedy}")
        self.problem, self.remedy = problem, remedy


class HostError(OverlayError):
    """The kernel refused something, or our forwarder did not start.  Raised from the error that caused it, if any."""

    kind = "failed"
    """The kind, for programs."""
