"""What holds for all tests."""

from __future__ import annotations

import encodings.idna  # noqa: F401  a codec that cannot be loaded once is missing for good: see below
import os
import signal

from hypothesis import Phase, settings

# encodings.idna is loaded here: a test that becomes another user for a moment may be unable to read Python's own files,
# and would be the first to look up a host's name.

# A job in the background has SIGINT ignored, and so would have every program that a test starts and interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says more of the machine than of the code.
settings.register_profile("unhurried", deadline=None)
# For scripts/mutate: the same examples each time, and a failure is enough, however large its example is.
settings.register_profile(
    "mutation",
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=30,
    phases=(Phase.explicit, Phase.generate),
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "unhurried"))
