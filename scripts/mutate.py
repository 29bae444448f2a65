"""Change modules in many small ways, run the tests that reach each change, and show the changes that all of them pass.

The work is done by mutmut in a copy of the tree.  This script chooses the tests and, if asked to, a sample of the
changes, sets those aside that ``tests/equivalent.toml`` explains, and prints the rest as differences.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path

import click
from mutmut.mutation.file_mutation import mutate_file_contents
from mutmut.utils.format_utils import get_mutant_name

ROOT = Path(__file__).resolve().parents[1]
EQUIVALENT = ROOT / "tests" / "equivalent.toml"
MUTMUT = (sys.executable, "-W", "ignore", "-m", "mutmut")


@dataclass(frozen=True)
class Change:
    """A change of one statement: the module, the lines that it takes away and the lines that it puts there."""

    module: str
    before: str
    after: str

    def __str__(self) -> str:
        """Return the change as a difference."""
        lines = [self.module, *(f"  - {line}" for line in self.before.splitlines())]
        return "\n".join([*lines, *(f"  + {line}" for line in self.after.splitlines())])


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--tests", multiple=True, help="Tests to run in place of those that mirror the modules.")
@click.option("--whole-nodes", is_flag=True, help="Run tests/test_two_nodes.py as well.")
@click.option(
    "--jobs", default=os.cpu_count() or 1, show_default=True, help="Changes tried at the same time."
)
@click.option(
    "--sample", type=click.IntRange(min=1), metavar="N", help="Try N changes of each module, not all."
)
@click.option("--seed", default=0, show_default=True, help="Another number chooses another sample.")
def main(
    paths: tuple[Path, ...],
    tests: tuple[str, ...],
    jobs: int,
    sample: int | None,
    seed: int,
    *,
    whole_nodes: bool,
) -> None:
    """Show the changes of PATHS (modules or folders, as overlay/crypto/replay.py) that no test notices.

    Exits 1 if there are any.  Changes that alter nothing that anybody could see are explained in
    tests/equivalent.toml; they are counted and not shown.  Constants of a module are not changed.

    A large module has thousands of changes.  --sample tries some of them, chosen at random; the same
    module, N and seed choose the same changes again.
    """
    modules = sorted({str(module) for path in paths for module in _modules(path)})
    chosen = list(tests) or _mirror(modules, whole_nodes=whole_nodes)
    with tempfile.TemporaryDirectory(prefix="mutate-") as folder:
        copy = Path(folder)
        _copy_tree(copy, modules, chosen)
        names = _names(copy, modules)
        picked = [name for module in modules for name in pick(names[module], sample, seed)]
        tried = frozenset(picked)
        _run(copy, jobs, picked if sample else [])
        results = {name: result for name, result in _results(copy).items() if name in tried}
        passed = [name for name, result in results.items() if result not in {"killed", "timeout"}]
        changes = [_change(copy, name) for name in passed]
    explained = _explained()
    survivors = [change for change in changes if change not in explained]
    for change in survivors:
        click.echo(f"{change}\n")
    equivalent = len(changes) - len(survivors)
    counted = len(results) - equivalent
    share = 100.0 * (counted - len(survivors)) / counted if counted else 100.0
    click.echo(
        f"{counted - len(survivors)} of {counted} changes noticed ({share:.1f} %), {len(survivors)} not, "
        f"{equivalent} equivalent"
    )
    if sample:
        click.echo(f"A sample of {len(picked)} of {sum(map(len, names.values()))} changes, with seed {seed}.")
    sys.exit(1 if survivors else 0)


def pick(names: list[str], size: int | None, seed: int) -> list[str]:
    """Return *size* of the changes *names* of one module, or all if there are no more or *size* is None.

    The choice depends on nothing but the arguments.
    """
    if size is None or size >= len(names):
        return names
    return sorted(random.Random(f"{seed} {names[0]}").sample(names, size))


def _modules(path: Path) -> list[Path]:
    """Return the modules at *path*, relative to the root."""
    place = (ROOT / path).resolve()
    if not place.exists() or not place.is_relative_to(ROOT):
        raise click.BadParameter(f"{path} is not a module or a folder of this project")
    found = [place] if place.is_file() else sorted(place.rglob("*.py"))
    return [module.relative_to(ROOT) for module in found if module.name != "__init__.py"]


def _mirror(modules: list[str], *, whole_nodes: bool) -> list[str]:
    """Return the tests of *modules*: the file that mirrors each, else its room; those of whole nodes if asked for."""
    chosen = set()
    for module in map(Path, modules):
        room = Path("tests") / module.parent
        named = room / f"test_{module.name}"
        chosen.add(str(named if (ROOT / named).is_file() else room))
    return [*sorted(chosen), *(["tests/test_two_nodes.py"] if whole_nodes else [])]


def _copy_tree(copy: Path, modules: list[str], tests: list[str]) -> None:
    """Copy what git knows, and what is new and not ignored, and tell mutmut what to do with it."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    plugins = ["-p", "no:randomly", "-p", "no:rerunfailures", "-p", "no:cacheprovider", "-q"]
    with (copy / "pyproject.toml").open("a") as settings:
        settings.write(
            "\n[tool.mutmut]\n"
            f"source_paths = {modules!r}\n"
            'also_copy = ["overlay", "peers", "scripts", "tests", "docs", "README.md"]\n'
            f"pytest_add_cli_args_test_selection = {tests!r}\n"
            f"pytest_add_cli_args = {plugins!r}\n"
            "do_not_mutate_patterns = ['^\\s*assert ']\n"  # what our own code guarantees
            "timeout_multiplier = 3.0\ntimeout_constant = 20.0\n"  # seconds; a change may make a loop endless
            "use_git_change_detection = false\n"
        )


def _names(copy: Path, modules: list[str]) -> dict[str, list[str]]:
    """Return by module mutmut's names of its changes, in the order of the code."""
    with contextlib.chdir(copy):  # where mutmut finds its settings
        made = {module: mutate_file_contents(module, Path(module).read_text()) for module in modules}
    return {
        module: [get_mutant_name(Path(module), name) for name in changed.mutant_names]
        for module, changed in made.items()
    }


def _run(copy: Path, jobs: int, names: list[str]) -> None:
    """Try the changes *names*, or all if there are none."""
    environment = {**os.environ, "HYPOTHESIS_PROFILE": "mutation"}
    log = copy / "mutate.log"
    with log.open("w") as output:
        done = subprocess.run(
            [*MUTMUT, "run", "--max-children", str(jobs), *names],
            cwd=copy, env=environment, stdout=output, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
    if done.returncode != 0:
        raise click.ClickException(f"mutmut failed:\n{log.read_text()[-4000:]}")


def _results(copy: Path) -> dict[str, str]:
    """Return what became of each change, by mutmut's name of it."""
    listed = subprocess.run(
        [*MUTMUT, "results", "--all", "true"], cwd=copy, check=True, capture_output=True, text=True
    )
    rows = (line.strip().rpartition(": ") for line in listed.stdout.splitlines() if ": " in line)
    return {name: result for name, _, result in rows}


def _change(copy: Path, name: str) -> Change:
    shown = subprocess.run([*MUTMUT, "show", name], cwd=copy, check=True, capture_output=True, text=True)
    before, after, module = list[str](), list[str](), ""
    for line in shown.stdout.splitlines():
        if line.startswith("--- "):
            module = line.removeprefix("--- ")
        elif line.startswith("-"):
            before.append(line[1:].strip())
        elif line.startswith("+") and not line.startswith("+++ "):
            after.append(line[1:].strip())
    return Change(module, "\n".join(before), "\n".join(after))


def _explained() -> set[Change]:
    """Return the changes that alter nothing, each of which has its reason in the file."""
    rows = tomllib.loads(EQUIVALENT.read_text()).get("change", [])
    return {Change(row["module"], row["before"], row["after"]) for row in rows if row["why"]}


if __name__ == "__main__":
    main()
