"""The files of a running node: when they are read again, why they are refused, and the notes about that.

Reading waits for disks, so the agent calls read() in a worker thread.  The state of the agent itself is not touched
here.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

from overlay import amending, config
from overlay.diagnosis.finding import Finding
from overlay.errors import ConfigError, HostError, KeyFileError
from overlay.keys.announcing import Announcing
from overlay.keys.files import load_own_key, load_private_key
from overlay.keys.own import KeyFiles
from peers.peer import format_public_key

if TYPE_CHECKING:
    from overlay.config import Node, Options
    from overlay.crypto.keys import PrivateKey
    from peers.errors import StoreError
    from peers.stores.store import Store

# Ours
KEY = "key"  # the cause of a reload for a key file of this host that was added, removed or changed
ASKED = "SIGHUP"  # the cause of a reload that was requested, for the log
RETRY = "retry"  # the cause of a reload without a change or request
RETRY_INTERVAL = 5.0  # seconds; the cause of a refusal may be corrected without a change of the peers file
PATIENCE = 2  # checks in a row; tools that replace a file may leave it absent for a moment

log = logging.getLogger("overlay")


class Reloads:
    """The state of the peers file since the node started.

    *error* says why the last version is not in force; None if it is.  *asked* is the number of reloads requested.
    """

    def __init__(self, store: Store, options: Options) -> None:
        self.error: str | None = None
        self._store, self._options = store, options
        self._retry_at = math.inf
        self._absences = 0  # checks in a row without a peers file
        self._key_files = KeyFiles(None if options.is_bare else options.key)
        self._key_note: Finding | None = None
        self.asked = self._begun = 0
        self._announcing = Announcing(store)

    @property
    def refusal(self) -> str | None:
        """Why the peers file is not in force; None if it is, or if it is gone, for which there is a note."""
        return None if self._is_gone else self.error

    @property
    def _is_gone(self) -> bool:
        return self._absences >= PATIENCE

    @property
    def notes(self) -> list[Finding]:
        """Return the problems of files and of the store that do not affect the table in force."""
        notes = [self._key_note] if self._key_note else []
        notes += [Finding("store", each.problem, each.remedy) for each in self._store.notes()]
        if self._is_gone:
            problem = (
                f"{self._options.peers} is gone, and the previous table stays in force until the agent ends"
            )
            notes.append(Finding("files", problem, "put the file back"))
        return notes

    def look(self, now: float) -> str | None:
        """Return the reason for a reload at *now*, for the log; None if there is none.  Called every second."""
        self._look_for_file()
        if self._store.changed():
            return self._options.peers.store
        if self._key_files.changed():
            return KEY
        return RETRY if now >= self._retry_at else None

    def ask(self) -> int:
        """Return the number of a requested reload, for is_done()."""
        self.asked += 1
        return self.asked

    def is_done(self, number: int) -> bool:
        """Return whether a reload has begun since the request with this *number*."""
        return number <= self._begun

    def begin(self, cause: str) -> str:
        """Return the cause of the reload that begins now: ASKED if one was requested and has not begun, or *cause*.

        All that were requested are done with it.
        """
        was_asked = self._begun < self.asked
        self._begun = self.asked
        return ASKED if was_asked else cause

    def read(self, node: Node) -> Node:
        """Return *node* according to the present files.

        Raises ConfigError, HostError or StoreError if they cannot be used.  A private key that has changed, or cannot
        be read, does not prevent the rest from taking effect: there is a note until it is as it was.
        """
        filed = node.as_filed
        key = self._key_of(filed)
        self._announcing.withdraw(key, self._options)
        taken = config.settle(self._store, key, self._options, filed.own)
        if taken.table.network.bulk != node.table.network.bulk:
            raise ConfigError(
                f"network.bulk changed in {self._options.peers}: it takes effect only after a restart"
            )
        if taken.is_tap != node.is_tap:
            raise ConfigError(
                f"network.device changed in {self._options.peers}: it takes effect only after a restart"
            )
        taken, dropped = amending.carry_over(node, taken)
        if dropped is not None:
            log.warning("%s", dropped)
        self._announcing.settle(taken)
        return taken

    def taken(self, cause: str, peers: int) -> None:
        """Record that the files are in force, with *peers* other peers."""
        self.error, self._retry_at = None, math.inf
        self._announcing.announce()
        log.info("reloaded cause=%s peers=%d", cause, peers)

    def refused(self, error: ConfigError | HostError | StoreError, cause: str, now: float) -> None:
        """Record that the previous table stays in force, because of *error*.

        An error that only a change of the peers file can correct waits for that; others are retried, and logged again
        if the error changes.
        """
        is_news = cause != RETRY or str(error) != self.error
        self.error = str(error)
        waits_for_file = isinstance(error, ConfigError) and not isinstance(error, KeyFileError)
        self._retry_at = math.inf if waits_for_file else now + RETRY_INTERVAL
        if is_news:
            log.error("reload refused cause=%s, the previous table stays in force: %s", cause, error)

    def _look_for_file(self) -> None:
        before = self._absences
        self._absences = self._absences + 1 if self._store.is_absent() else 0
        if self._absences == PATIENCE:
            log.warning("%s", self.notes[-1])
        elif before >= PATIENCE and not self._absences:
            log.info("peers file is back path=%s", self._options.peers)

    def _key_of(self, node: Node) -> PrivateKey | None:
        """Return the key of *node*, and note changes of its file."""
        path, is_keyed = self._options.key, node.own.public_key is not None
        key: PrivateKey | None = None
        note: Finding | None = None
        if node.is_bare:
            return node.private_key
        try:
            key, _ = load_private_key(path) if is_keyed else load_own_key(path)
        except ConfigError as error:
            also = "this node keeps using its present key, but may not start again"
            problem, remedy = (
                (error.problem, error.remedy) if isinstance(error, KeyFileError) else (str(error), "")
            )
            note = Finding("files", f"{problem}; {also}", remedy)
        if is_keyed:
            if key is not None and key not in {node.private_key, node.next_key}:
                public = format_public_key(key.public)
                note = Finding(
                    "files",
                    f"{path} now contains a different key, whose public key is {public}, which takes effect only after "
                    "a restart",
                    "start the agent again, or replace the key by `overlay rotate-key`",
                )
                key = None
            key = key or node.private_key
        if note is not None and note != self._key_note:
            log.warning("%s", note)
        self._key_note = note
        return key
