"""Feed the parsers and the packet path input from a fuzzer, guided by code coverage.

Without a target, all run in turn.  An input for which a target fails is kept in tests/corpus/TARGET, where the tests
run it from then on: correct the fault, and commit both.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.fuzz.targets import TARGETS

SECONDS = 10
PATIENCE = 10  # seconds for one input
LONGEST = 4096  # bytes of an input
ROOT = Path(__file__).parents[2]


def main() -> int:
    """Run the command and return its exit code: 1 if a target failed."""
    options = _parse()
    if options.list:
        print("\n".join(TARGETS))
        return 0
    names = [options.target] if options.target else list(TARGETS)
    failed = [name for name in names if not fuzz(name, options.seconds, keep=options.keep)]
    if failed:
        print(f"scripts/fuzz: failed: {', '.join(failed)}", file=sys.stderr)
    return bool(failed)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "target", nargs="?", choices=TARGETS, metavar="TARGET", help="one of --list; all without it"
    )
    parser.add_argument("--list", action="store_true", help="list the targets and do nothing else")
    parser.add_argument(
        "--seconds", type=int, default=SECONDS, metavar="N", help=f"how long each target runs ({SECONDS})"
    )
    parser.add_argument(
        "--keep",
        action="store_true",
        help="add to the corpus the few inputs that reach what no other there does",
    )
    return parser.parse_args()


def fuzz(name: str, seconds: int, *, keep: bool) -> bool:
    """Run a target for that many seconds; return whether it accepted all inputs."""
    target = TARGETS[name]
    with tempfile.TemporaryDirectory(prefix="overlay-fuzz-") as directory:
        found, known, crashes = (Path(directory, part) for part in ("found", "known", "crashes"))
        for path in (found, known, crashes):
            path.mkdir()
        for data in target.inputs().values():
            known.joinpath(_digest(data)).write_bytes(data)
        print(f"{name}: ", end="", flush=True)
        code, said = _work(name, f"-max_total_time={seconds}", f"-artifact_prefix={crashes}/", found, known)
        for path in crashes.iterdir():
            kind, data = path.name.partition("-")[0], path.read_bytes()
            _save(target.corpus / f"{kind}-{_digest(data)}", data)
        if code:
            print("failed")
            print(said, file=sys.stderr)
            return False
        print(_summary(said))
        if keep:
            _, kept = Path(directory, "kept").mkdir(), Path(directory, "kept")
            _work(name, "-merge=1", kept, known, found)
            news = {path.name for path in kept.iterdir()} - {path.name for path in known.iterdir()}
            for each in kept.iterdir():
                if each.name in news:
                    _save(target.corpus / _digest(each.read_bytes()), each.read_bytes())
    return True


def _work(name: str, *arguments: str | Path) -> tuple[int, str]:
    """Run the worker until it ends; return its exit code and the last lines of its output."""
    command = [sys.executable, "-m", "tests.fuzz.worker", name]
    command += [f"-timeout={PATIENCE}", f"-max_len={LONGEST}", *map(str, arguments)]
    done = subprocess.run(
        command,
        cwd=ROOT,
        check=False,
        text=True,
        errors="replace",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "PYTHONHASHSEED": "0"},
    )
    return done.returncode, "\n".join(done.stdout.splitlines()[-60:])


def _summary(said: str) -> str:
    """Return the number of inputs and the coverage that libFuzzer's last line reports."""
    counts = re.findall(r"^#(\d+)\s.*? ft: (\d+)", said, re.MULTILINE)
    return "{} inputs, {} features reached".format(*counts[-1]) if counts else "hardly begun"


def _save(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    print(f"kept {path.relative_to(ROOT)}")


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


if __name__ == "__main__":
    sys.exit(main())
