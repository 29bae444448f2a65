"""What holds for all tests."""

from __future__ import annotations

import encodings.idna  # noqa: F401  a codec that cannot be loaded once is missing for good: see below
import signal

from tests import hypothesis_profiles  # noqa: F401  it chooses the profile

# encodings.idna is loaded here: a test that becomes another user for a moment may be unable to read Python's own files,
# and would be the first to look up a host's name.

# A job in the background has SIGINT ignored, and so would have every program that a test starts and interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)
