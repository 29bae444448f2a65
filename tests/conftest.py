"""What holds for all tests."""

from __future__ import annotations

import encodings.idna  # noqa: F401  a codec that cannot be loaded once is missing for good: see below
import gc
import signal

import pytest

from tests import hypothesis_profiles  # noqa: F401  it chooses the profile

# encodings.idna is loaded here: a test that becomes another user for a moment may be unable to read Python's own files,
# and would be the first to look up a host's name.

# Twelve thousand tests are a million objects that stay: to go through them again and again took a fifth of collection.
gc.set_threshold(10_000, 20, 20)

# Without network namespaces, the files that take longest, if only because they wait: alone at the end of a parallel
# run they would keep all but one worker idle
LONG = {
    "test_any_packets.py",
    "test_changes.py",
    "test_compiled.py",
    "test_directors.py",
    "test_ending.py",
    "test_every_path.py",
    "test_forwarder.py",
    "test_forwarders.py",
    "test_fuzz.py",
    "test_main.py",
    "test_mutate.py",
    "test_questions.py",
    "test_rekeying.py",
    "test_script.py",
    "test_service_model.py",
    "test_services.py",
    "test_sync.py",
    "test_vip.py",
}

# A job in the background has SIGINT ignored, and so would have every program that a test starts and interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the tests that take longest: in parallel runs the others fill what time they leave to the end."""
    items.sort(key=lambda item: (item.get_closest_marker("netns") is None, item.path.name not in LONG))
