"""Tests that need a real kernel use the lab, those of what a host is set up with a host in it."""

from tests.netns.topology import _requirements, lab
from tests.overlay.setup_bench import host

__all__ = ["_requirements", "host", "lab"]
