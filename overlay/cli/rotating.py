"""``overlay rotate-key``: replace this host's private key without an outage."""

# ruff: noqa: PLC0415  see overlay/cli/__init__.py

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from overlay.cli.agents import ask
from overlay.cli.exits import Failure, Misuse
from overlay.cli.keyfiles import refuse_special, remove_secret, take_name, write_secret
from overlay.cli.options import interface_option, json_option, key_option
from overlay.cli.output import show, show_json
from overlay.cli.surroundings import Surroundings
from overlay.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from overlay.crypto.keys import PrivateKey

# Ours
SCHEMA = 1
PATIENCE = 10.0  # seconds for the agent to see the files; it looks every second
POLL_INTERVAL = 0.2
SOON = "the new key will be published to the other hosts within seconds"


@click.command("rotate-key", epilog="Example: overlay rotate-key")
@key_option("The private key of this host that is in use; the next one is FILE.new.")
@interface_option
@click.option("--finish", is_flag=True, help="Replace the old key, which is deleted, with the new one.")
@click.option("--abort", is_flag=True, help="Remove the new key, and keep using the old one.")
@click.option("--force", is_flag=True, help="Finish or abort even if that cuts peers off.")
@json_option
@click.pass_context
def command(
    ctx: click.Context, key: Path, interface: str, finish: bool, abort: bool, force: bool, as_json: bool
) -> None:
    """Make the next private key of this host, print its public key, and show which peers use it already.

    From then on the agent answers to both keys.  Write the new public key into the peers file of each host, whenever
    you like; in a network in etcd the agent publishes it itself.  Once all peers use it, --finish withdraws the old
    key.  Nothing is interrupted by any of these steps.
    """
    if finish and abort:
        raise Misuse(
            "--finish and --abort cannot be combined: one keeps the new key, the other the old one; choose one"
        )
    if force and not (finish or abort):
        raise Misuse("--force is for --finish and --abort; leave it out")
    rotation = _Rotation(ctx, key, interface, aborts=abort)
    if finish:
        rotation.finish(force=force)
    elif abort:
        rotation.abort(force=force)
    else:
        rotation.begin()
    agent = rotation.agent
    if as_json:
        show_json(rotation.describe())
        return
    if not (finish or abort):
        show(rotation.public(rotation.following or rotation.current))
    for line in rotation.sentences(is_over=finish or abort):
        click.echo(printable(line), err=True)
    if agent is None:
        click.echo(f"no agent runs for {interface}; it uses these files when it starts", err=True)


@dataclass
class _Agent:
    """What the agent reports about its keys."""

    name: str
    key_file: str
    peers_file: str
    is_by_file: bool
    is_store_silent: bool
    public_key: str
    next_public_key: str | None
    listed_public_key: str | None
    delay: str | None
    reload_error: str | None
    peers: dict[str, list[str]] | None

    def late(self) -> list[str]:
        """Return the peers that have not used the new key yet."""
        return [] if self.peers is None else [*self.peers["old"], *self.peers["silent"]]


class _Rotation:
    """The key files of this host, and its agent, if one runs."""

    def __init__(self, ctx: click.Context, key: Path, interface: str, *, aborts: bool) -> None:
        from overlay.errors import KeyFileError
        from overlay.keys.files import load_private_key
        from overlay.keys.own import load_next_key, next_path

        self._ctx, self._path, self._interface = ctx, key, interface
        self._next_path = next_path(key)
        self.agent = self._ask()
        if self.agent is not None and os.path.realpath(self.agent.key_file) != os.path.realpath(key):
            raise Misuse(
                f"--key {key}: the agent of {interface} uses {self.agent.key_file}; name that, "
                "or another agent with --interface"
            )
        self.current, _ = load_private_key(key)
        self._is_broken = False  # the file of the next key does not contain a key
        try:
            self.following = load_next_key(key, interface)
        except KeyFileError as error:
            if not aborts:
                raise Misuse(str(error)) from None
            self.following, self._is_broken = None, True
        refuse_special(key)
        refuse_special(self._next_path)  # also refuses a dead link: no key can be made there

    @staticmethod
    def public(key: PrivateKey) -> str:
        from overlay.crypto.keys import encode_key

        return encode_key(key.public)

    def begin(self) -> None:
        """Make the next key, unless there is one."""
        self._refuse_copy()
        from overlay.crypto.keys import PrivateKey
        from overlay.keys.own import load_next_key

        if self.following is None:
            made = PrivateKey.generate(os.urandom)
            try:
                write_secret(self._next_path, made.to_base64() + "\n", like=self._path)
            except FileExistsError:  # another command made one meanwhile
                made = load_next_key(self._path) or made
            self.following = made
        wanted = self.public(self.following)
        self._wait(lambda agent: agent.next_public_key == wanted, "take the new key")

    def finish(self, *, force: bool) -> None:
        """Keep only the next key."""
        new = self._needed("finish")
        self._refuse_copy()
        if not force:
            agent = self._known("finish")
            if agent.listed_public_key != new and not agent.is_by_file:
                raise Failure(f"{agent.delay or SOON}; finish then, or give --force")
            if agent.listed_public_key != new:
                raise Failure(
                    f"{agent.peers_file} has another public_key for {agent.name}, which is this host, "
                    "so the agent would not recognize itself: "
                    f'write public_key = "{new}" there first'
                )
            self._refuse_late(agent.late(), "the old key is withdrawn")
        take_name(self._next_path, self._path)
        self.current, self.following = self.following or self.current, None
        self._wait(
            lambda agent: agent.public_key == new and agent.next_public_key is None, "switch to the new key"
        )

    def abort(self, *, force: bool) -> None:
        """Keep only the key in use."""
        if not self._is_broken:
            self._needed("abort")
        if not force and not (self._is_broken and self.agent is None):
            agent = self._known("abort")
            if agent.listed_public_key != agent.public_key and agent.is_by_file:
                raise Failure(
                    f"{agent.peers_file} has the new public_key for {agent.name}, which is this host, "
                    "so the agent would not recognize itself: "
                    f'write public_key = "{agent.public_key}" there first'
                )
            users = [] if agent.peers is None else agent.peers["new"]
            if agent.is_by_file:
                self._refuse_late(users, "the new key is withdrawn")
            elif users and agent.is_store_silent:
                raise Failure(
                    "etcd is silent, so the old key cannot be published again; wait for it, or give --force"
                )
        remove_secret(self._next_path)
        self.following = None
        self._wait(lambda agent: agent.next_public_key is None, "forget the new key")

    def sentences(self, *, is_over: bool) -> list[str]:
        """Return sentences on what was done, and what remains."""
        from overlay.keys.rotation import some

        if is_over or self.following is None:
            return [f"this host answers to {self.public(self.current)} only, from now on"]
        new, agent = self.public(self.following), self.agent
        if agent is None:
            return [
                f'write public_key = "{new}" into the section of this host in the peers file, on every host'
            ]
        late = agent.late()
        lines = []
        if agent.peers and agent.peers["new"]:
            lines.append(f"the new key is used by {some(agent.peers['new'])}")
        if not agent.is_by_file and agent.listed_public_key != new:
            lines.append(agent.delay or SOON)
        elif not agent.is_by_file and late:
            lines.append(
                f"the new key is published to the other hosts; these do not use it yet: {some(late)}"
            )
        elif late or agent.listed_public_key != new:
            lines.append(
                f'write public_key = "{new}" into peers.{agent.name} of the peers file, on every host'
                + (f"; these do not use it yet: {some(late)}" if late else "")
            )
        else:
            lines.append(f"every peer uses it: withdraw the old key with `{self._command('--finish')}`")
        return lines

    def describe(self) -> dict[str, object]:
        """Return the progress, for a program."""
        return {
            "schema": SCHEMA,
            "public_key": self.public(self.current),
            "next_public_key": None if self.following is None else self.public(self.following),
            "listed_public_key": None if self.agent is None else self.agent.listed_public_key,
            "peers": None if self.agent is None else self.agent.peers,
        }

    # Helpers

    def _command(self, *options: str) -> str:
        from overlay.keys.own import command

        return command(self._path, self._interface, *options)

    def _needed(self, verb: str) -> str:
        if self.following is None:
            raise Misuse(
                f"there is nothing to {verb}: {self._next_path} does not exist; `overlay rotate-key` makes it"
            )
        return self.public(self.following)

    def _refuse_copy(self) -> None:
        """Raise Misuse if the next key is the one in use: the user would believe that the old one is withdrawn."""
        if self.following is not None and self.following.public == self.current.public:
            raise Misuse(
                f"{self._next_path} contains the key that is in use, not a new one: remove it with "
                f"`{self._command('--abort', '--force')}`, then run this again"
            )

    def _known(self, verb: str) -> _Agent:
        if self.agent is None:
            raise Failure(
                f"no agent runs for {self._interface}, so it is not known which key the peers use; start it, "
                f"or {verb} with --force"
            )
        if self.following is not None and self.agent.next_public_key != self.public(self.following):
            why = f": {self.agent.reload_error}" if self.agent.reload_error else ""
            raise Failure(
                f"the agent of {self._interface} has not loaded {self._next_path}{why}; see `overlay status`"
            )
        return self.agent

    def _refuse_late(self, names: list[str], what: str) -> None:
        from overlay.keys.rotation import some

        if names:
            raise Failure(
                f"{some(names)} would be cut off once {what}; change their peers files first, or give --force"
            )

    def _ask(self) -> _Agent | None:
        from overlay.host.control import NoAgentError

        try:
            answer: dict[str, Any] = ask(self._ctx, self._interface, op="own_keys")
        except NoAgentError:
            return None
        return _Agent(**{name: answer[name] for name in _Agent.__dataclass_fields__})

    def _wait(self, is_done: Callable[[_Agent], bool], what: str) -> None:
        """Return when the agent has done it, or at once if none runs.  Raises Failure after PATIENCE."""
        surroundings = Surroundings.of(self._ctx)
        deadline = surroundings.now() + PATIENCE
        while True:
            self.agent = self._ask()
            if self.agent is None or is_done(self.agent):
                return
            if surroundings.now() >= deadline:
                why = f": {self.agent.reload_error}" if self.agent.reload_error else ""
                raise Failure(
                    f"the agent of {self._interface} did not {what} in {PATIENCE:g} s{why}; see its log"
                )
            surroundings.sleep(POLL_INTERVAL)
