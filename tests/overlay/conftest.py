"""Tests with a real kernel use the lab; those of host setup use a host in it."""

from tests.netns.topology import _requirements, lab
from tests.overlay.provisioning.setup_bench import host

__all__ = ["_requirements", "host", "lab"]
