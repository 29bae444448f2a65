"""Tests with a real kernel: each is marked ``netns`` and skipped if the machine cannot run it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.netns.lan import lan
from tests.netns.network import LOGS
from tests.netns.topology import Lab, _requirements, lab

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

__all__ = ["_requirements", "lab", "lan", "module_lab"]

HERE = f"{Path(__file__).parent}/"
LAST_LINES = 15  # of an agent's log


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if str(item.path).startswith(HERE):
            item.add_marker(pytest.mark.netns)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the agents' last log lines if a test fails: the failure may not happen again."""
    report = yield
    if report.failed and str(item.path).startswith(HERE):
        for name, path in LOGS.items():
            if path.exists():
                lines = path.read_text(errors="replace").splitlines()[-LAST_LINES:]
                report.sections.append((f"the agent of {name}", "\n".join(lines)))
    return report


@pytest.fixture(scope="module", autouse=True)
def _logs_of_the_module() -> Iterator[None]:
    yield
    LOGS.clear()


@pytest.fixture(scope="module")
def module_lab(_requirements: str | None) -> Iterator[Lab]:
    """A lab that the tests of a module share."""
    if _requirements:
        pytest.skip(_requirements)
    with Lab() as made:
        yield made
