"""``overlay cni install`` and ``uninstall``."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
from typing import TYPE_CHECKING

import click

from overlay.cli.agents import ask
from overlay.cli.cni import network
from overlay.cli.exits import Failure, Misuse
from overlay.cli.options import PathName, interface_option
from overlay.cli.output import show, warn
from overlay.host import advice

if TYPE_CHECKING:
    from pathlib import Path

# Ours
LARGEST = 1024 * 1024  # bytes that are read of a network
PATIENCE = 10.0  # seconds for portmap to report its versions
FOLDER = PathName(file_okay=False)

conf_dir_option = click.option(
    "--conf-dir",
    type=FOLDER,
    default=network.CONFIGURATIONS,
    help="Where runtimes look for networks.",
)
bin_dir_option = click.option(
    "--bin-dir",
    type=FOLDER,
    help="Where runtimes look for plugins; by default where the reference plugins are, otherwise /opt/cni/bin.",
)


@click.command("install")
@conf_dir_option
@bin_dir_option
@click.option("--name", default="overlay", help="The name of the network.")
@interface_option
@click.pass_context
def install(ctx: click.Context, conf_dir: Path, bin_dir: Path | None, name: str, interface: str) -> None:
    """Let container runtimes attach containers to the overlay of an agent.

    Writes the plugin overlay-cni, and the network 10-overlay.conflist once the agent can serve it.  If the reference
    plugins are in the same directory, the plugin portmap, which publishes ports, is part of the network.
    """
    if not network.is_name(name):
        raise Misuse(
            f"{name!r} is not a network name: begin with a letter or digit; letters, digits, '_', '.' and '-' may "
            f"follow"
        )
    folder = bin_dir or _default_folder()
    others = _others(conf_dir)
    for path, text in others.items():
        if network.name_of(text) == name and path.name != network.FILE:
            raise Misuse(f"{path} already has a network {name}: choose another --name, or remove that file")
    own = conf_dir / network.FILE
    if own in others and not network.is_ours(others[own]):
        raise Misuse(f"{own} belongs to another network: move it away")
    state = ask(ctx, interface, op="can_attach")
    if state.get("state") == "no_subnet":
        raise Failure(str(state.get("reason")))
    _write(folder / network.PLUGIN, network.launcher(), 0o755)
    versions = _portmap_versions(folder / network.PORTMAP)
    _write(own, network.network(name, interface, versions), 0o644)
    show(
        f"wrote {folder / network.PLUGIN} and {own}: containers in the network {name} are in the overlay of {interface}"
    )
    if versions is None:
        warn(
            f"{folder / network.PORTMAP} is not there, so no ports are published: install the reference plugins "
            "(Debian: containernetworking-plugins), and run this again"
        )
    if state.get("state") == "cut_off":
        warn(str(state.get("reason")))
    first = min((path.name for path in others), default=network.FILE)
    if first < network.FILE:
        warn(
            f"containerd and CRI-O use {conf_dir / first}, which comes first by its name: "
            "move it away if it is a leftover"
        )


@click.command("uninstall")
@conf_dir_option
@bin_dir_option
def uninstall(conf_dir: Path, bin_dir: Path | None) -> None:
    """Remove the network and the plugin from container runtimes.  Running containers keep their addresses."""
    removed = []
    own, plugin = conf_dir / network.FILE, (bin_dir or _default_folder()) / network.PLUGIN
    places = [plugin] if bin_dir is not None else {plugin, network.PLUGINS / network.PLUGIN}
    for path, is_ours in ((own, network.is_ours), *((place, _is_launcher) for place in sorted(places))):
        text = _read(path)
        if text is None:
            continue
        if not is_ours(text):
            raise Misuse(f"{path} was not made by `overlay cni install`: remove it yourself")
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise Failure(f"{path} cannot be removed: {error.strerror}; {advice.after(error)}") from error
        removed.append(str(path))
    show(f"removed {' and '.join(removed)}" if removed else "nothing was installed")


def _default_folder() -> Path:
    """Return the folder of plugins: the one with the reference plugins, if there is one."""
    folders = (network.PLUGINS, *network.DISTRIBUTIONS)
    return next((each for each in folders if (each / network.PORTMAP).exists()), network.PLUGINS)


def _others(folder: Path) -> dict[Path, str]:
    """Return the networks in *folder* that can be read, by path."""
    try:
        paths = [path for path in folder.iterdir() if path.name.endswith(network.ENDINGS)]
    except OSError:
        return {}
    return {path: text for path in paths if (text := _read(path)) is not None}


def _read(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return file.read(LARGEST).decode(errors="replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Failure(f"{path} cannot be read: {error.strerror}; {advice.after(error)}") from error


def _is_launcher(text: str) -> bool:
    return network.MARK in text


def _write(path: Path, text: str, mode: int) -> None:
    """Replace *path* by *text* in one step; until it is complete, it has a name without a known ending."""
    draft = path.parent / f".{path.name}.{secrets.token_hex(8)}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "w") as file:
                file.write(text)
                os.fchmod(file.fileno(), mode)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        finally:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)
    except OSError as error:
        raise Failure(
            f"{path} cannot be written: {error.strerror}; {advice.after(error)}, or name another folder"
        ) from error


def _portmap_versions(plugin: Path) -> list[str] | None:
    """Return the versions of CNI that *plugin* supports; None if it does not exist or cannot be started."""
    if not os.access(plugin, os.X_OK):
        return None
    environment = {"CNI_COMMAND": "VERSION", "PATH": os.environ.get("PATH", "")}
    try:
        done = subprocess.run(
            [plugin], input=b"{}", env=environment, capture_output=True, timeout=PATIENCE, check=False
        )
        found = json.loads(done.stdout).get("supportedVersions")
    except (OSError, ValueError, AttributeError, subprocess.TimeoutExpired):
        return None
    return [str(each) for each in found] if isinstance(found, list) else []
