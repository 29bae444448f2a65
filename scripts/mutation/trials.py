"""Trials of changes: the tests are collected once, and those that reach a change run in a fork with that change."""

from __future__ import annotations

import enum
import gc
import json
import signal
import time
from dataclasses import dataclass
from functools import partial
from itertools import chain, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pytest

from scripts.mutation.children import Children
from scripts.mutation.reach import Calls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from scripts.mutation.changes import Mutant

T = TypeVar("T")

IMPORT_SECONDS = 20  # of CPU at most; every module takes less than one
COLLECTED = 100  # tests, after which the garbage of a whole node or two each is collected
PASSED, FAILED = 0, 1  # exit statuses of a child


class Outcome(enum.Enum):
    """The outcome of the tests for a change."""

    NOTICED = "noticed"  # a test failed, or its process died
    TIMED_OUT = "timed out"  # a test took far longer than it does without the change
    SURVIVED = "survived"
    UNREACHED = "reached by no test"


@dataclass(frozen=True)
class Reach:
    """A test that passes without a change: the seconds of CPU that it takes and the functions that it calls."""

    test: int
    seconds: float
    functions: list[int]


class Trials:
    """A plugin of pytest that tries *mutants*, *jobs* at a time, instead of the usual run.

    The tests of one change take at most *seconds* of CPU, as measured without the change.  Of a test with many
    parameters, *variants* are used, or all.  *report* is called with each outcome; *folder* is for files of this run.
    """

    def __init__(
        self,
        mutants: list[Mutant],
        jobs: int,
        seconds: float,
        variants: int | None,
        report: Callable[[Mutant, Outcome], None],
        folder: Path,
    ) -> None:
        self.failing = list[str]()  # the tests that fail without a change, which are not used
        self._mutants = mutants
        self._jobs = jobs
        self._seconds = seconds
        self._variants = variants
        self._report = report
        self._folder = folder
        self._failed = False

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Leave out variants of a test beyond the requested number (hook of pytest)."""
        by_test = dict[str, list[pytest.Item]]()
        for item in items:
            by_test.setdefault(item.nodeid.partition("[")[0], []).append(item)
        items[:] = [item for variants in by_test.values() for item in spread(variants, self._variants)]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a failure (hook of pytest)."""
        self._failed = self._failed or report.failed

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Try the changes (hook of pytest).  Raises session.Interrupted if tests could not be collected."""
        if session.testsfailed:
            raise session.Interrupted("some tests cannot be collected")
        gc.collect()
        gc.freeze()  # so that the children share these pages
        functions = list(
            dict.fromkeys(_function_of(each) for each in self._mutants if each.target() is not None)
        )
        reaching = dict[tuple[str, str], list[Reach]]()
        for reach in self._measure(session.items, functions):
            for number in reach.functions:
                reaching.setdefault(functions[number], []).append(reach)

        trying: Children[Mutant] = Children(self._folder / "error")
        with trying as children:
            for mutant in self._mutants:
                found = reaching.get(_function_of(mutant), [])
                if not found:
                    self._report(mutant, Outcome.UNREACHED)
                    continue
                tests = self._choose(session.items, found, mutant)
                if len(children) == self._jobs:
                    self._settle(*children.wait())
                children.start(mutant, partial(self._trial, mutant, tests))
            while children:
                self._settle(*children.wait())
        return True

    def _measure(self, items: list[pytest.Item], functions: list[tuple[str, str]]) -> list[Reach]:
        """Return what each test reaches of *functions*, by their places, when it runs without a change."""

        def work(job: int) -> int:
            rows, calls = [], Calls(functions)
            for test in range(job, len(items), self._jobs):
                calls.take()
                begin = time.process_time()
                passed = self._passes(items[test])
                rows.append(((test, time.process_time() - begin, calls.take()), passed))
                if test % COLLECTED < self._jobs:
                    gc.collect()  # with so many live objects, this would rarely happen by itself
            (self._folder / f"reach-{job}").write_text(json.dumps(rows))
            return PASSED

        measuring: Children[int] = Children(self._folder / "error")
        with measuring as children:
            for job in range(self._jobs):
                children.start(job, partial(work, job))
            while children:
                job, status = children.wait()
                if status != PASSED:
                    raise ChildProcessError(f"the tests end their process without a change (status {status})")
        made = list[Reach]()
        for job in range(self._jobs):
            for row, passed in json.loads((self._folder / f"reach-{job}").read_text()):
                reach = Reach(*row)
                if passed:
                    made.append(reach)
                else:
                    self.failing.append(items[reach.test].nodeid)
        return made

    def _choose(
        self, items: list[pytest.Item], found: list[Reach], mutant: Mutant
    ) -> list[tuple[pytest.Item, float]]:
        """Return the tests of a change, best first, and the seconds that each takes.

        Tests in the file that mirrors the module get at most a third of the time, and those in files beside it as much;
        the others get the rest.
        """
        own, near, far = (dict[Path, list[Reach]]() for _ in range(3))
        for reach in sorted(found, key=lambda reach: reach.seconds):
            path = items[reach.test].path
            files = near if path.parent.match(str(mutant.mirror.parent)) else far
            files = own if path.match(str(mutant.mirror)) else files
            files.setdefault(path, []).append(reach)
        chosen = list[Reach]()
        for share, files in ((1 / 3, own), (2 / 3, near), (1, far)):
            left = share * self._seconds - sum(reach.seconds for reach in chosen)
            chosen += _within(left, _in_turn(files)) if left > 0 else []
        return [(items[reach.test], reach.seconds) for reach in chosen]

    def _trial(self, mutant: Mutant, tests: list[tuple[pytest.Item, float]]) -> int:
        signal.setitimer(signal.ITIMER_PROF, IMPORT_SECONDS)  # the import calls some functions
        mutant.apply()
        for item, seconds in tests:
            signal.setitimer(signal.ITIMER_PROF, 5 * seconds + 1)  # CPU, the same on a loaded machine
            signal.setitimer(signal.ITIMER_REAL, 60 * seconds + 120)  # for a test that sleeps
            if not self._passes(item):
                return FAILED
        return PASSED

    def _settle(self, mutant: Mutant, status: int) -> None:
        if status == PASSED:
            outcome = Outcome.SURVIVED
        elif -status in {signal.SIGPROF, signal.SIGALRM}:
            outcome = Outcome.TIMED_OUT
        else:
            outcome = Outcome.NOTICED
        self._report(mutant, outcome)

    def _passes(self, item: pytest.Item) -> bool:
        """Run one test, with its setup and teardown."""
        self._failed = False
        item.ihook.pytest_runtest_protocol(item=item, nextitem=None)
        return not self._failed


def spread(items: Sequence[T], most: int | None) -> list[T]:
    """Return *most* of *items* at equal distances, including the first and the last; all if there are no more."""
    if most is None or len(items) <= most:
        return list(items)
    return [items[at * (len(items) - 1) // max(1, most - 1)] for at in range(most)]


def _function_of(mutant: Mutant) -> tuple[str, str]:
    return mutant.module, mutant.function


def _in_turn(files: dict[Path, list[Reach]]) -> Iterator[Reach]:
    """Yield the first test of each file, then the next of each, because tests of one file are much alike."""
    return (reach for reach in chain(*zip_longest(*files.values())) if reach is not None)


def _within(seconds: float, reaches: Iterable[Reach]) -> Iterator[Reach]:
    """Yield the first of *reaches* that together take at most *seconds*, but at least one."""
    total = 0.0
    for reach in reaches:
        if total and total + reach.seconds > seconds:
            return
        total += reach.seconds
        yield reach
