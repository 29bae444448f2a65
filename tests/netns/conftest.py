"""Tests of a real kernel: each is marked ``netns`` and skipped where the machine cannot run it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.netns.lan import lan
from tests.netns.topology import Lab, _requirements, lab

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["_requirements", "lab", "lan", "module_lab"]

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.netns)


@pytest.fixture(scope="module")
def module_lab(_requirements: str | None) -> Iterator[Lab]:
    """A lab that the tests of a module share."""
    if _requirements:
        pytest.skip(_requirements)
    with Lab() as made:
        yield made
