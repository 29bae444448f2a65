"""Tests of a real kernel: each is marked ``netns`` and skipped where the machine cannot run it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.netns.topology import _requirements, lab

__all__ = ["_requirements", "lab"]

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.netns)
