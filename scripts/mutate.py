"""Change modules in many small ways, run the tests that reach each change, and show the changes that all of them pass.

The changes are those of mutmut; scripts/mutation/ tries them.  This script chooses the tests and, if requested, a
sample of the changes, sets aside those that ``tests/equivalent.toml`` explains, and prints the rest as differences.

Only Python is changed, even where the packet path has a compiled twin: nodes in memory send by Python unless a test
asks for the twin, and a test whose packets take only the twin calls no changed function, so it is not run.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click
import pytest

from scripts.mutation.changes import ROOT, Explained, Mutant, mirror, mutants
from scripts.mutation.trials import Outcome, Trials

if TYPE_CHECKING:
    from collections.abc import Sequence

EQUIVALENT = "equivalent"
PYTEST = [
    "-qq", "-s", "--no-header", "-m", "not netns", "-o", "timeout=0",
    "-p", "no:randomly", "-p", "no:xdist", "-p", "no:cacheprovider",
]  # fmt: skip

T = TypeVar("T")


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--tests", multiple=True, help="Tests to run in place of those that mirror PATHS.")
@click.option("--whole-nodes", is_flag=True, help="Run tests/two_nodes/ as well.")
@click.option(
    "--jobs", default=os.cpu_count() or 1, show_default=True, type=click.IntRange(min=1),
    help="Changes tried at the same time.",
)  # fmt: skip
@click.option(
    "--seconds", default=30.0, show_default=True, help="CPU time of the tests that run for one change."
)
@click.option(
    "--variants",
    type=click.IntRange(min=1),
    metavar="N",
    help="Use only N of the parameters of each test.",
)
@click.option("--sample", type=click.IntRange(min=1), metavar="N", help="Try N of all changes of PATHS.")
@click.option("--seed", default=0, show_default=True, help="Another number chooses another sample.")
def main(
    paths: tuple[Path, ...],
    tests: tuple[str, ...],
    jobs: int,
    seconds: float,
    variants: int | None,
    sample: int | None,
    seed: int,
    *,
    whole_nodes: bool,
) -> None:
    """Show the changes of PATHS (modules or folders, such as overlay/crypto/replay.py) that no test notices.

    Exits 1 if there are any.  Changes without a visible effect are explained in tests/equivalent.toml; they are
    counted, but neither tried nor shown.  Constants of a module and the types in cast() are not changed.
    A change that makes a test take far longer, in CPU time, counts as noticed; it is shown nevertheless.

    Most of the time is spent on tests of changes that none of them notices: --seconds and --variants limit it.  The
    only risk is to miss a test that would have noticed.

    A large module has thousands of changes.  --sample tries some, chosen at random from all changes of PATHS, so that
    each module gets its share of them; the same code, N and seed choose the same changes again.
    """
    modules = sorted({str(module) for path in paths for module in _modules(path)})
    every = mutants(modules)
    picked = pick(every, sample, seed)
    explained = Explained()
    tried = [mutant for mutant in picked if mutant.change() not in explained]
    counts = Counter({EQUIVALENT: len(picked) - len(tried)})

    def report(mutant: Mutant, outcome: Outcome) -> None:
        if outcome is not Outcome.NOTICED:
            click.echo(f"{mutant.change()}\n  in {mutant.function}: {outcome.value}\n")
        counts[outcome.value] += 1

    os.chdir(ROOT)
    os.environ["HYPOTHESIS_PROFILE"] = "mutation"
    with tempfile.TemporaryDirectory(prefix="mutate-", ignore_cleanup_errors=True) as folder:
        os.environ["TMPDIR"] = tempfile.tempdir = folder  # for files that an interrupted test leaves
        trials = Trials(tried, jobs, seconds, variants, report, Path(folder))
        status = pytest.main([*PYTEST, *(tests or _mirror(paths, whole_nodes=whole_nodes))], plugins=[trials])
        tempfile.tempdir = None
    for test in trials.failing:
        click.echo(f"{test} fails without a change and was not used.", err=True)
    if sum(counts.values()) != len(picked):
        raise click.ClickException(f"the tests could not be run (pytest: {status!r})")
    sys.exit(
        _summary(counts, f"A sample of {len(picked)} of {len(every)} changes, seed {seed}." if sample else "")
    )


def pick(changes: Sequence[T], size: int | None, seed: int) -> list[T]:
    """Return *size* of *changes* in their order, or all if there are no more or *size* is None.

    The choice depends only on the number of changes, *size* and *seed*.
    """
    if size is None or size >= len(changes):
        return list(changes)
    return [changes[at] for at in sorted(random.Random(seed).sample(range(len(changes)), size))]


def _summary(counts: Counter[str], sample: str) -> int:
    """Print the outcome of the changes and return the exit status."""
    noticed = counts[Outcome.NOTICED.value] + counts[Outcome.TIMED_OUT.value]
    missed = counts[Outcome.SURVIVED.value] + counts[Outcome.UNREACHED.value]
    share = 100.0 * noticed / (noticed + missed) if noticed + missed else 100.0
    click.echo(
        f"{noticed} of {noticed + missed} changes noticed ({share:.1f} %), {counts[Outcome.TIMED_OUT.value]} of them "
        f"by a time-out; {missed} not, {counts[Outcome.UNREACHED.value]} of them reached by no test; "
        f"{counts[EQUIVALENT]} equivalent"
    )
    if sample:
        click.echo(sample)
    return 1 if missed else 0


def _modules(path: Path) -> list[Path]:
    """Return the modules at *path*, relative to the root."""
    place = Path(os.path.normpath(ROOT / path))
    if not place.exists() or not place.is_relative_to(ROOT):
        raise click.BadParameter(f"{path} is not a module or a folder of this project")
    found = [place] if place.is_file() else sorted(place.rglob("*.py"))
    return [module.relative_to(ROOT) for module in found if module.name != "__init__.py"]


def _mirror(paths: Sequence[Path], *, whole_nodes: bool) -> list[str]:
    """Return the tests of *paths*: those that mirror each, or its folder; and those of whole nodes on request."""
    chosen = set()
    for path in paths:
        place = Path(os.path.normpath(ROOT / path)).relative_to(ROOT)
        mirrors = [mirror(str(place)), *(Path("tests") / room for room in (place, *place.parents))]
        chosen.add(str(next(tests for tests in mirrors if (ROOT / tests).exists())))
    nodes = sorted(ROOT.glob("tests/two_nodes/**/test_*.py")) if whole_nodes else []
    return [*sorted(chosen), *(str(tests.relative_to(ROOT)) for tests in nodes)]


if __name__ == "__main__":
    main()
