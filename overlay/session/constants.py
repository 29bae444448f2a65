"""The times and limits of a session (whitepaper section 6.1), and those we chose ourselves."""

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
REKEY_TIMEOUT = 5.0  # an initiation without a response is sent again
REKEY_ATTEMPT_TIME = 90.0  # so long initiations are sent without success, that is 18 times again
KEEPALIVE_TIMEOUT = 10.0  # data received and nothing sent: an empty payload goes back
REKEY_AFTER_MESSAGES = 2**60

# As the other implementations do; the whitepaper gives the purpose but no number
REKEY_JITTER = (
    0.333  # seconds at most; added to REKEY_TIMEOUT so that two ends do not retry in step (section 6.1)
)
INITIATION_INTERVAL = (
    0.020  # seconds; of one peer's initiations, those that follow sooner are refused (section 5.1)
)

# Ours
KEYPAIRS = 16  # of a peer, the most recent, whose indices are kept; a forwarder holds three and reports those it drops
GREETINGS_PER_SECOND = 250  # handshakes that no packet waits for: of a start, and of first keepalives
RECALL_INTERVAL = (
    60.0  # seconds between two calls to a peer whose clock was set back, for anybody can replay its messages
)

# Ours, of the search for a path's MTU (RFC 8899 leaves them open)
PATH_PROBE_TIME = 1.0  # seconds for the answer to a probe, as long as the round trip is not known
PATH_CONFIRM_TIME = 3.0  # seconds between two probes of the present size, while packets flow
PATH_RAISE_TIME = 30.0  # seconds after which larger sizes are tried again


@dataclass(frozen=True, slots=True)
class Timing:
    """The times by which a session lives, in seconds; a test may shorten them."""

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
        """How often an initiation is sent again before the peer is given up."""
        return round(self.rekey_attempt_time / self.rekey_timeout)

    @property
    def longest_attempt(self) -> float:
        """How long a peer is called without success if its turns are rarer than REKEY_TIMEOUT.

        It is given up no sooner than one that is called as often as it may be.
        """
        return (self.max_retries + 1) * (self.rekey_timeout + self.rekey_jitter)

    @property
    def first_pause(self) -> float:
        """How long an idle peer that was given up is left alone, before it is called once more.  Our own choice."""
        return 2 * self.rekey_timeout

    @property
    def longest_pause(self) -> float:
        """What that grows to, with each call without success: one minute."""
        return 12 * self.rekey_timeout

    @property
    def wipe_after_time(self) -> float:
        """After how long without a new keypair all keys are forgotten (whitepaper section 6.3)."""
        return 3 * self.reject_after_time
