"""Programs and what they have started: a keeper process for each ends all of it."""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path

import pytest
import trio

from overlay.hooks import keeping
from overlay.hooks.keeping import run_kept
from overlay.host.process import keeper
from overlay.services.checks.script import unprivileged_identity

# It leaves its session twice, has no living parent, and ignores SIGTERM
DAEMON = """
import os, signal, sys, time
for _ in range(2):
    if os.fork():
        os._exit(0)
    os.setsid()
signal.signal(signal.SIGTERM, signal.SIG_IGN)
with open(sys.argv[1] + ".new", "w") as file:
    file.write(str(os.getpid()))
os.rename(sys.argv[1] + ".new", sys.argv[1])
time.sleep(1000)
"""


class Bench:
    """A directory for programs, and beside it one that whoever runs them may write to."""

    def __init__(self, base):
        self.base, self.told = base, base / "told"
        self.told.mkdir()
        self.told.chmod(0o777)
        (base / "daemon.py").write_text(DAEMON)
        self.pid = self.told / "pid"
        self.start = f"/usr/bin/env python3 {base}/daemon.py {self.pid} &\nwhile [ ! -e {self.pid} ]; do sleep 0.05; done\n"

    def put(self, text):
        path = self.base / "program"
        path.write_text(f"#!/bin/sh\n{text}")
        path.chmod(0o755)
        return path

    def run(self, text, *, ends=None, said=b""):
        """Run a program of *text*, and end it once *ends* returns true; return its exit status."""
        path = self.put(text)

        async def main():
            status = None
            with trio.fail_after(60):
                async with trio.open_nursery() as nursery:
                    if ends is not None:
                        nursery.start_soon(self._end, nursery, ends)
                    environment = {"PATH": os.environ["PATH"], "NAME": "value"}
                    status = await run_kept(path, environment, said, unprivileged_identity())
            return status

        return trio.run(main)

    @staticmethod
    async def _end(nursery, ends):
        while not ends():
            await trio.sleep(0.01)
        nursery.cancel_scope.cancel()

    def is_running(self):
        """Return whether the daemon runs."""
        try:
            state = Path(f"/proc/{self.pid.read_text()}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return False
        return state not in "ZX"


@pytest.fixture
def bench():
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Bench(Path(name))


@pytest.fixture
def patience(monkeypatch):
    """Return a function that gives programs another time to end by themselves.

    The process next to a program is a separate one, so the constants of its file are, too.
    """
    with tempfile.TemporaryDirectory() as name:

        def change(seconds):
            source = Path(keeper.__file__).read_text()
            copy = Path(name) / "keeper.py"
            copy.write_text(source.replace("\nPATIENCE = 2.0", f"\nPATIENCE = {seconds}"))
            monkeypatch.setattr(keeper, "__file__", str(copy))
            monkeypatch.setattr(keeping, "PATIENCE", seconds + keeper.LAST_PATIENCE + 60.0)

        yield change


@pytest.fixture
def quick(patience):
    """End programs that do not end by themselves soon."""
    patience(0.2)


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_daemon_that_left_its_session_is_ended_with_the_program_whose_time_is_over(bench):
    assert bench.run(bench.start + "sleep 1000\n", ends=bench.pid.exists) is None
    assert bench.pid.exists()
    assert not bench.is_running()


@pytest.mark.usefixtures("quick")
def test_daemon_is_ended_when_the_program_that_started_it_is_done(bench):
    assert bench.run(bench.start + "exit 3\n") == 3
    assert bench.pid.exists()
    assert not bench.is_running()


def test_program_that_heeds_sigterm_has_time_to_tidy_up(bench, patience):
    patience(60.0)
    trap = f"trap 'echo tidied > {bench.told}/x; exit' TERM\necho > {bench.pid}\nsleep 1000 & wait\n"
    bench.run(trap, ends=bench.pid.exists)
    assert (bench.told / "x").read_text() == "tidied\n"


def test_program_has_what_it_is_given_and_nothing_of_ours(bench):
    assert (
        bench.run(
            f"cat > {bench.told}/said; env > {bench.told}/env; id -u > {bench.told}/user", said=b"what\n"
        )
        == 0
    )
    assert (bench.told / "said").read_text() == "what\n"
    names = {line.partition("=")[0] for line in (bench.told / "env").read_text().splitlines()}
    assert names - {"PWD", "_", "SHLVL", "OLDPWD"} == {"PATH", "NAME"}
    assert os.geteuid() or (bench.told / "user").read_text() != "0\n"


@pytest.mark.parametrize(("text", "status"), [("exit 0", 0), ("exit 255", 255), ("kill -9 $$", -9)])
def test_exit_status_is_that_of_the_program_also_if_it_does_not_read(bench, text, status):
    assert bench.run(text, said=b"x" * 200_000) == status


def test_program_that_cannot_be_started_is_an_error_with_its_reason(bench):
    with pytest.raises(FileNotFoundError):
        trio.run(run_kept, bench.base / "absent", {}, b"", (None, None))
    path = bench.put("")
    path.chmod(0o644)
    with pytest.raises(PermissionError):
        trio.run(run_kept, path, {}, b"", (None, None))


def test_children_are_found_without_the_kernel_s_list_of_them(monkeypatch):
    def refuse(self, *arguments):
        if self.name == "children":
            raise FileNotFoundError
        return read_text(self, *arguments)

    read_text = Path.read_text
    monkeypatch.setattr(Path, "read_text", refuse)
    pid = os.fork()
    if not pid:
        signal.pause()
        os._exit(0)
    try:
        assert pid in keeper._children()
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
