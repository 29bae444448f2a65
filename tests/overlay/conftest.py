"""Tests that need a real kernel use the lab."""

from tests.netns.topology import _requirements, lab

__all__ = ["_requirements", "lab"]
