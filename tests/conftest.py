"""What holds for all tests."""

from __future__ import annotations

import os
import signal

from hypothesis import Phase, settings

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
