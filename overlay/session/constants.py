"""The times and limits of a session: those of the whitepaper (section 6.1), and our own."""

from __future__ import annotations

from dataclasses import dataclass

from overlay.crypto.replay import REJECT_AFTER_MESSAGES

__all__ = [
    "GREETINGS_PER_SECOND",
    "INITIATION_INTERVAL",
    "KEEPALIVE_TIMEOUT",
    "RECALL_INTERVAL",
    "REJECT_AFTER_MESSAGES",
    "REJECT_AFTER_TIME",
    "REKEY_AFTER_MESSAGES",
    "REKEY_AFTER_TIME",
    "REKEY_ATTEMPT_TIME",
    "REKEY_JITTER",
    "REKEY_TIMEOUT",
    "Timing",
]

# Specification (whitepaper section 6.1), in seconds
REKEY_AFTER_TIME = 120.0  # a new handshake replaces the keypair
REJECT_AFTER_TIME = 180.0  # a keypair of that age neither seals nor opens
REKEY_TIMEOUT = 5.0  # an initiation without a response is repeated
REKEY_ATTEMPT_TIME = 90.0  # initiations are sent for this long without an answer, which means 18 repetitions
KEEPALIVE_TIMEOUT = 10.0  # data was received and nothing sent since: an empty payload is sent
REKEY_AFTER_MESSAGES = 2**60

# As in other implementations; the whitepaper gives the purpose but no number
REKEY_JITTER = (
    0.333  # seconds at most; added to REKEY_TIMEOUT so that two ends do not retry in step (section 6.1)
)
INITIATION_INTERVAL = 0.020  # seconds, at least, between initiations of one peer (section 5.1)

# Ours
KEYPAIRS = 16  # the most recent of a peer, whose indices are kept; a forwarder holds three and reports those it drops
GREETINGS_PER_SECOND = 250  # handshakes that no packet waits for: at the start, and for first keepalives
RECALL_INTERVAL = (
    60.0  # seconds between calls to a peer whose clock was set back: anyone can replay its messages
)

# Ours, for the search for a path's MTU (RFC 8899 leaves them open)
PATH_PROBE_TIME = 1.0  # seconds for the answer to a probe while the round trip is unknown
PATH_CONFIRM_TIME = 3.0  # seconds between two probes of the present size, while packets flow
PATH_RAISE_TIME = 30.0  # seconds until larger sizes are tried again


@dataclass(frozen=True, slots=True)
class Timing:
    """The times of a session, in seconds; a test may shorten them."""

    rekey_after_time: float = REKEY_AFTER_TIME
    reject_after_time: float = REJECT_AFTER_TIME
    rekey_timeout: float = REKEY_TIMEOUT
    rekey_attempt_time: float = REKEY_ATTEMPT_TIME
    rekey_jitter: float = REKEY_JITTER
    keepalive_timeout: float = KEEPALIVE_TIMEOUT
    initiation_interval: float = INITIATION_INTERVAL
    path_probe_time: float = PATH_PROBE_TIME
    path_confirm_time: float = PATH_CONFIRM_TIME
    path_raise_time: float = PATH_RAISE_TIME

    @property
    def max_retries(self) -> int:
        """Return how often an initiation is repeated before the peer is given up."""
        return round(self.rekey_attempt_time / self.rekey_timeout)

    @property
    def longest_attempt(self) -> float:
        """Return how long a peer is called without an answer if its turns are rarer than REKEY_TIMEOUT.

        It is given up no sooner than a peer that is called as often as allowed.
        """
        return (self.max_retries + 1) * (self.rekey_timeout + self.rekey_jitter)

    @property
    def first_pause(self) -> float:
        """Return how long an idle peer that was given up is left alone before it is called again.  Our own choice."""
        return 2 * self.rekey_timeout

    @property
    def longest_pause(self) -> float:
        """Return the longest such pause, to which it grows with each unanswered call: one minute."""
        return 12 * self.rekey_timeout

    @property
    def wipe_after_time(self) -> float:
        """Return how long after the last new keypair all keys are forgotten (whitepaper section 6.3)."""
        return 3 * self.reject_after_time
