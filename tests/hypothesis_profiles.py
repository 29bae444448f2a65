"""The Hypothesis profiles of all property tests.

HYPOTHESIS_PROFILE names one: ``full`` by default, ``ci`` for ``.ci/run``, ``quick`` for ``scripts/test --quick``,
``thorough`` for ``scripts/test --thorough``, ``mutation`` for ``scripts/mutate``.  Each generates the same examples
every time, so failures are reproducible; the fuzzer looks for others (docs/fuzzing.md).  The duration of an example
says more about the machine than about the code, so there is no deadline.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, settings

PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "full")
FEW, FEW_SEEDS = 10, 2  # examples in the quick profile, and seeds
SOME, SOME_SEEDS = 20, 2  # on the machine that tries every change
SHARE = 3  # one of so many examples and seeds is tried in the full profile; the thorough one has them all
MORE = 10  # times as many examples are tried in the thorough profile

_COMMON = settings(
    deadline=None,
    derandomize=True,
    database=None,
    # The examples of a test share worlds on purpose; a loaded machine makes any strategy slow.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.register_profile("full", _COMMON, max_examples=100 // SHARE)
settings.register_profile("ci", _COMMON, max_examples=SOME)
settings.register_profile("quick", _COMMON, max_examples=FEW)
settings.register_profile("thorough", _COMMON, max_examples=100 * MORE)
# A failure is enough, however large its example is.
settings.register_profile("mutation", _COMMON, max_examples=30, phases=(Phase.explicit, Phase.generate))
settings.load_profile(PROFILE)


def seeds(count: int) -> range:
    """Return the seeds of a test that generates *count* stories by itself: all of them in the thorough profile."""
    return range(_chosen(count, few=FEW_SEEDS, some=SOME_SEEDS, thorough=count))


def examples(count: int) -> settings:
    """Return the settings of a test with *count* examples, where 100 is the default.

    In the thorough profile it is more, in the others fewer.
    """
    return settings(max_examples=_chosen(count, few=FEW, some=SOME, thorough=MORE * count))


def _chosen(count: int, *, few: int, some: int, thorough: int) -> int:
    """Return how many examples the profile tries if *count* are intended."""
    by_profile = {
        "quick": min(count, few),
        "ci": min(count, some),
        "full": max(count // SHARE, min(count, some)),
        "thorough": thorough,
    }
    return by_profile.get(PROFILE, count)
