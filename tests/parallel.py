"""What makes pytest-xdist fit for twenty thousand tests: how files go to workers, and what these report."""

from __future__ import annotations

from typing import TYPE_CHECKING, SupportsIndex

from _pytest.runner import runtestprotocol
from xdist.scheduler import LoadFileScheduling

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pytest
    from xdist.workermanage import WorkerController


def is_worker(config: pytest.Config) -> bool:
    """Report whether this process runs tests for a controller."""
    return hasattr(config, "workerinput")


class Collection(list[str]):
    """The names of the tests that a worker has collected, in order.  Where one stands is looked up, not searched."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(names)
        self._places = {name: place for place, name in enumerate(names)}

    def index(self, value: str, start: SupportsIndex = 0, stop: SupportsIndex = -1, /) -> int:
        """Return the place of the test *value* among all, whatever *start* and *stop* are."""
        return self._places[value]


class FileScheduling(LoadFileScheduling):
    """Gives workers one file after the other, as LoadFileScheduling does, at a cost that does not grow with all tests.

    LoadFileScheduling goes through all that a worker has done whenever a test ends, and searches each test in a list.
    """

    def add_node_collection(self, node: WorkerController, collection: Sequence[str]) -> None:
        """Keep what *node* has collected."""
        super().add_node_collection(node, Collection(collection))
        if node in self.registered_collections:
            self.registered_collections[node] = Collection(collection)

    def mark_test_complete(self, node: WorkerController, item_index: int, duration: float = 0) -> None:
        """Count a test as done, and forget a file of which all are."""
        super().mark_test_complete(node, item_index, duration)
        files = self.assigned_work[node]
        file = self._split_scope(self.registered_collections[node][item_index])
        if all(files[file].values()):
            del files[file]


def run_and_report(item: pytest.Item, nextitem: pytest.Item | None) -> bool:
    """Run the test *item* in a worker, and report its call; setup and teardown only where they did not pass.

    By pytest's own protocol a worker sends six messages for each test, and four of them say that all is well.
    """
    for report in runtestprotocol(item, log=False, nextitem=nextitem):
        if report.when == "call" or not report.passed:
            item.ihook.pytest_runtest_logreport(report=report)
    return True
