"""Feed the C of the compiled packet path, alone and under sanitizers, stories that a fuzzer makes up.

    scripts/fuzz native [--seconds N] [--inputs N] [--jobs N] [--keep]

An input is a packet that the path reads from its tun, or a datagram that it receives; of those that the kernel hands
over as one, at most 128, each counts.  overlay/forwarding/native/fuzz has the stories, and what must hold of all that
the path gives out beside that no sanitizer finds anything.  An input that fails is kept in tests/corpus/native.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz.target import CORPUS

NATIVE = Path(__file__).parents[2] / "overlay/forwarding/native"
# Include files that the fuzzer does not need
WITH_PYTHON = ("Python.h", "module.h", "object.h", "simulated.h")
FLAGS = ["-std=gnu11", "-g", "-fno-strict-aliasing", "-fno-omit-frame-pointer", "-Wall", "-Wextra", "-Werror"]
TRAPS = ["-DNO_ROOM=__builtin_trap"]  # what slice.h refuses to write: a mistake behind the door
SANITIZED = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
COVERED = ["-fsanitize-coverage=inline-8bit-counters,pc-table"]
LONGEST = 1500  # bytes of a story
MEGABYTES = 1000  # that it may take: a leak ends it


def sources() -> list[Path]:
    """Return the files of the compiled path that do without Python."""
    paths = sorted(NATIVE.glob("*.c"))
    return [path for path in paths if not any(name in path.read_text() for name in WITH_PYTHON)]


def find_clang() -> str | None:
    """Return a clang that has libFuzzer."""
    for name in ("clang-19", "clang", "clang-18", "clang-17", "clang-16", "clang-15", "clang-14"):
        if (
            shutil.which(name)
            and not subprocess.run(
                [name, "-fsanitize=fuzzer,address", "-x", "c", "-", "-o", os.devnull],
                input="int LLVMFuzzerTestOneInput(void) { return 0; }",
                text=True,
                check=False,
                capture_output=True,
            ).returncode
        ):
            return name
    return None


def has_sanitizers(compiler: str) -> bool:
    """Return whether *compiler* can build programs with sanitizers, for which it needs their
    libraries and those of C.
    """
    return not subprocess.run(
        [compiler, *SANITIZED, "-x", "c", "-", "-o", os.devnull],
        input="#include <stdlib.h>\nint main(void) { return 0; }",
        text=True,
        check=False,
        capture_output=True,
    ).returncode


def build(compiler: str, program: Path, *, is_guided: bool) -> None:
    """Make *program*: by clang a fuzzer that is guided, by any compiler one
    that tells the stories in the files it is given.

    Raises CalledProcessError where it cannot be built.
    """
    with tempfile.TemporaryDirectory() as directory:
        objects = []
        for path in [*sources(), *sorted(NATIVE.glob("fuzz/*.c"))]:
            made = str(Path(directory, f"{path.parent.name}-{path.stem}.o"))
            is_tested = path.parent == NATIVE or path.name == "story.c"
            # The simulated world is not under test, and instrumenting it would only slow it down.
            checks = [*SANITIZED] if is_tested or not is_guided else []
            checks += COVERED if is_tested and is_guided else []
            optimised = ["-O2"] if is_guided else ["-O1", "-DREPLAY"]
            command = [compiler, *FLAGS, *TRAPS, *optimised, *checks, "-c", str(path), "-o", made]
            subprocess.run(command, check=True)
            objects.append(made)
        guide = ["-fsanitize=fuzzer"] if is_guided else []
        subprocess.run(
            [compiler, *SANITIZED, *guide, *objects, "-ldl", "-lm", "-o", str(program)], check=True
        )


def replay(program: Path, paths: list[Path], *, is_guided: bool) -> subprocess.CompletedProcess[str]:
    """Run the stories in *paths* under the sanitizers."""
    # What a process had at most counts that of its parent before exec: no limit holds for a worker of pytest.
    limits = ["-rss_limit_mb=0", f"-malloc_limit_mb={MEGABYTES}"] if is_guided else []
    return subprocess.run(
        [program, *limits, *paths], check=False, text=True, errors="replace", capture_output=True, timeout=300
    )


def main() -> int:
    """Fuzz until the time is over or there were enough inputs; return 1 if something was found."""
    parser = argparse.ArgumentParser(
        prog="scripts/fuzz native", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=int, default=60, metavar="N", help="how long (60)")
    parser.add_argument("--inputs", type=float, default=math.inf, metavar="N", help="stop behind so many")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes at once (1)")
    parser.add_argument(
        "--keep",
        action="store_true",
        help="add to the corpus the few inputs that reach what no other there does",
    )
    options = parser.parse_args()
    clang = find_clang()
    if clang is None:
        print(
            "scripts/fuzz native: no clang with libFuzzer: install clang-19 and libclang-rt-19-dev",
            file=sys.stderr,
        )
        return 1
    with tempfile.TemporaryDirectory(prefix="overlay-fuzz-") as directory:
        return _fuzz(clang, Path(directory), options)


def _fuzz(clang: str, directory: Path, options: argparse.Namespace) -> int:
    corpus, program, found = CORPUS / "native", directory / "story", directory / "found"
    crashes = directory / "crashes"
    for path in (found, crashes):
        path.mkdir()
    corpus.mkdir(parents=True, exist_ok=True)
    build(clang, program, is_guided=True)
    logs, processes = [], []
    for number in range(options.jobs):
        command = [program, f"-max_len={LONGEST}", "-len_control=0", f"-max_total_time={options.seconds}"]
        command += [f"-rss_limit_mb={MEGABYTES}", f"-artifact_prefix={crashes}/", "-reload=10", found, corpus]
        logs.append(directory / f"{number}.log")
        with logs[-1].open("w") as log:
            processes.append(subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL))
    begun = told = time.monotonic()
    while any(process.poll() is None for process in processes):
        time.sleep(1)
        is_enough = sum(map(_inputs, logs)) >= options.inputs
        if is_enough or any(process.poll() for process in processes):
            for process in processes:
                process.terminate()
        if time.monotonic() >= told + 60:
            told = time.monotonic()
            print(f"{sum(map(_inputs, logs))} inputs, {told - begun:.0f} s", flush=True)
    print(f"{sum(map(_inputs, logs))} inputs, {time.monotonic() - begun:.0f} s, by {clang}")
    for path in crashes.iterdir():
        data = path.read_bytes()
        kept = corpus / f"{path.name.partition('-')[0]}-{hashlib.sha256(data).hexdigest()[:16]}"
        kept.write_bytes(data)
        print(f"kept {kept}")
    if options.keep:
        less = directory / "less"
        less.mkdir()
        subprocess.run(
            [program, "-merge=1", "-use_counters=0", less, corpus, found], check=True, capture_output=True
        )
        for path in less.iterdir():
            data = path.read_bytes()
            (corpus / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
    if any(crashes.iterdir()):
        for log in logs:
            print("\n".join(log.read_text(errors="replace").splitlines()[-60:]), file=sys.stderr)
        return 1
    return 0


def _inputs(log: Path) -> int:
    """Return how many inputs a process has reported."""
    counts = re.findall(r"^(\d+) inputs ", log.read_text(errors="replace"), re.MULTILINE)
    return int(counts[-1]) if counts else 0


if __name__ == "__main__":
    sys.exit(main())
