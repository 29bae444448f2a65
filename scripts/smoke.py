"""Try an installed overlay: its versions, a peers file, the forwarder and, as root, a ping between two hosts.

scripts/package runs this with the Python of an environment that has only the wheel and its requirements.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

OVERLAY = Path(sys.executable).with_name("overlay")
# Everything that these import must be in the wheel or its requirements.
MODULES = ("overlay.lifecycle", "overlay.forwarding.__main__", "peers.stores.file")
TYPED = ("overlay", "peers")
HOSTS = {"paris": ("192.0.2.1", "10.244.0.1"), "tokyo": ("192.0.2.2", "10.244.0.2")}
PATIENCE = 60.0  # seconds for one command, or for an agent to be ready
POLL_INTERVAL = 0.1


class SmokeError(Exception):
    """A step failed; the text is one sentence."""


def say(text: str) -> None:
    print(f"smoke: {text}", file=sys.stderr, flush=True)


def run(*words: str | Path) -> str:
    """Return the standard output of a command.  Raises SmokeError if it fails."""
    line = " ".join(map(str, words))
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        raise SmokeError(f"{line} did not end within {PATIENCE:g} s") from None
    if done.returncode != 0:
        raise SmokeError(f"{line} ended with {done.returncode}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def try_installation() -> None:
    """Check that the installed package, not a source tree, is imported, and that it is complete."""
    for name in (*TYPED, *MODULES):
        try:
            file = Path(importlib.import_module(name).__file__ or "")
        except ImportError as error:
            raise SmokeError(f"{name} cannot be imported: {error}") from error
        if not file.is_relative_to(sys.prefix):
            raise SmokeError(f"{name} is imported from {file}, which is not in {sys.prefix}")
    for name in TYPED:
        if not (Path(importlib.import_module(name).__file__ or "").parent / "py.typed").is_file():
            raise SmokeError(f"{name}/py.typed is missing in the wheel")
    for field in ("Author", "Keywords", "Classifier", "Description-Content-Type"):
        if field not in metadata.metadata("overlay"):
            raise SmokeError(f"the metadata of the wheel has no {field}")
    say("the wheel is complete")


def try_commands(folder: Path) -> None:
    """Check that the command runs, makes keys, and accepts a peers file with them."""
    versions = run(OVERLAY, "--version")
    if f"overlay {metadata.version('overlay')}" not in versions or "not installed" in versions:
        raise SmokeError(f"overlay --version printed: {versions}")
    if shutil.which("gcc") is not None and "packet path compiled" not in versions:
        raise SmokeError(f"there is a compiler, but the packet path is not compiled: {versions}")
    lines = ['[network]\nprefix = "10.244.0.0/16"']
    for name, (underlay, address) in HOSTS.items():
        key = run(OVERLAY, "keygen", "--key", folder / f"{name}.key").strip()
        lines.append(f'[peers.{name}]\npublic_key = "{key}"\nendpoint = "{underlay}"\naddress = "{address}"')
    (folder / "peers.toml").write_text("\n".join(lines))
    shown = run(OVERLAY, "check", "--peers", folder / "peers.toml", "--key", folder / "paris.key")
    if "paris" not in shown or "tokyo" not in shown:
        raise SmokeError(f"overlay check does not show both peers: {shown}")
    say(f"commands work: {', '.join(versions.split(chr(10))[:3])}")


def why_no_namespaces() -> str | None:
    """Return what is missing to connect two hosts here; None if nothing is missing."""
    if os.geteuid() != 0:
        return "root"
    if shutil.which("ip") is None:
        return "the program ip"
    return None if Path("/dev/net/tun").exists() else "/dev/net/tun"


@contextlib.contextmanager
def hosts() -> Iterator[dict[str, str]]:
    """Yield the namespaces of the hosts, joined by a veth pair; they are removed at the end of the block."""
    spaces = {name: f"overlay-smoke-{os.getpid()}-{name}" for name in HOSTS}
    try:
        for space in spaces.values():
            run("ip", "netns", "add", space)
        paris, tokyo = spaces.values()
        run("ip", "-n", paris, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", tokyo)
        for name, space in spaces.items():
            run("ip", "-n", space, "address", "add", f"{HOSTS[name][0]}/24", "dev", "eth0")
            run("ip", "-n", space, "link", "set", "lo", "up")
            run("ip", "-n", space, "link", "set", "eth0", "up")
        yield spaces
    finally:
        for space in spaces.values():
            subprocess.run(["ip", "netns", "delete", space], capture_output=True, check=False)


@contextlib.contextmanager
def agent(name: str, space: str, folder: Path) -> Iterator[None]:
    """Run the agent of a host during the block, which begins once it answers."""
    log = folder / f"{name}.log"
    up: list[str | Path] = [
        "ip",
        "netns",
        "exec",
        space,
        OVERLAY,
        "up",
        "--peers",
        folder / "peers.toml",
        "--key",
        folder / f"{name}.key",
    ]
    with log.open("w") as file, subprocess.Popen(up, stdout=file, stderr=file) as process:
        try:
            deadline = time.monotonic() + PATIENCE
            while not answers(space):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SmokeError(f"the agent of {name} is not ready in time; its log: {log.read_text()}")
                time.sleep(POLL_INTERVAL)
            yield
        finally:
            process.terminate()
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()


def answers(space: str) -> bool:
    asked: list[str | Path] = ["ip", "netns", "exec", space, OVERLAY, "status", "--json"]
    return subprocess.run(asked, capture_output=True, check=False, timeout=PATIENCE).returncode == 0


def try_tunnel(folder: Path) -> None:
    """Check that two agents connect two hosts."""
    with hosts() as spaces, agent("paris", spaces["paris"], folder), agent("tokyo", spaces["tokyo"], folder):
        shown = run("ip", "netns", "exec", spaces["paris"], OVERLAY, "ping", "tokyo", "-c", "3", "-W", "10")
        say(f"two hosts are connected: {shown.strip().splitlines()[-1]}")


def main() -> int:
    """Return the exit code: 0 if everything works, 1 after a sentence on what does not."""
    with tempfile.TemporaryDirectory(prefix="overlay-smoke-") as folder:
        try:
            try_installation()
            try_commands(Path(folder))
            missing = why_no_namespaces()
            if missing is None:
                try_tunnel(Path(folder))
            else:
                say(f"no tunnel was tried, because that needs {missing}")
        except SmokeError as error:
            say(f"failed: {error}")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
