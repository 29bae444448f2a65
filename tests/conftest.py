"""What holds for all tests."""

from __future__ import annotations

import os

from hypothesis import Phase, settings

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
