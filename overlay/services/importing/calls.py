"""One call of ipvsadm 1.31: its command and options, short and long, in all forms that popt accepts."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from overlay.importing.places import UnreadableError

if TYPE_CHECKING:
    from overlay.importing.places import FileLine

# Specification (ipvsadm 1.31)
COMMANDS = {
    "A": "--add-service",
    "E": "--edit-service",
    "D": "--delete-service",
    "C": "--clear",
    "R": "--restore",
    "S": "--save",
    "a": "--add-server",
    "e": "--edit-server",
    "d": "--delete-server",
    "L": "--list",
    "l": "--list",
    "Z": "--zero",
    "set": "--set",
    "start": "--start-daemon",
    "stop": "--stop-daemon",
    "h": "--help",
}
"""By the letter of the command, or a name chosen here if it has none."""

OPTIONS = {
    "t": "--tcp-service",
    "u": "--udp-service",
    "f": "--fwmark-service",
    "sctp": "--sctp-service",
    "6": "--ipv6",
    "s": "--scheduler",
    "p": "--persistent",
    "M": "--netmask",
    "pe": "--pe",
    "o": "--ops",
    "r": "--real-server",
    "g": "--gatewaying",
    "i": "--ipip",
    "m": "--masquerading",
    "w": "--weight",
    "x": "--u-threshold",
    "y": "--l-threshold",
    "b": "--sched-flags",
    "tun-type": "--tun-type",
    "tun-port": "--tun-port",
    "tun-nocsum": "--tun-nocsum",
    "tun-csum": "--tun-csum",
    "tun-remcsum": "--tun-remcsum",
    "n": "--numeric",
    "c": "--connection",
    "timeout": "--timeout",
    "daemon": "--daemon",
    "stats": "--stats",
    "rate": "--rate",
    "exact": "--exact",
    "thresholds": "--thresholds",
    "persistent-conn": "--persistent-conn",
    "tun-info": "--tun-info",
    "nosort": "--nosort",
    "sort": "--sort",
    "mcast-interface": "--mcast-interface",
    "syncid": "--syncid",
    "sync-maxlen": "--sync-maxlen",
    "mcast-group": "--mcast-group",
    "mcast-port": "--mcast-port",
    "mcast-ttl": "--mcast-ttl",
}
WITH_VALUE = {
    *("t", "u", "f", "sctp", "s", "M", "pe", "r", "w", "x", "y", "b", "tun-type", "tun-port"),
    *("mcast-interface", "syncid", "sync-maxlen", "mcast-group", "mcast-port", "mcast-ttl", "start", "stop"),
}

_OF_SERVICE = {"t", "u", "f", "sctp", "6"}
_OF_TUNNEL = {"tun-type", "tun-port", "tun-nocsum", "tun-csum", "tun-remcsum"}
ACCEPTED = {
    "A": _OF_SERVICE | {"s", "p", "M", "pe", "o", "b"},
    "E": _OF_SERVICE | {"s", "p", "M", "pe", "o", "b"},
    "D": _OF_SERVICE,
    "C": set(),
    "a": _OF_SERVICE | _OF_TUNNEL | {"r", "g", "i", "m", "w", "x", "y"},
    "e": _OF_SERVICE | _OF_TUNNEL | {"r", "g", "i", "m", "w", "x", "y"},
    "d": _OF_SERVICE | {"r"},
    "set": set(),
}
"""The options of commands that change the table (commands_v_options)."""

NUMBER = re.compile(r"[0-9]{1,18}")
_LETTERS = {long: short for short, long in {**OPTIONS, **COMMANDS}.items() if short != "l"}


class Call:
    """One call: its *command*, *options* by letter or name, and *arguments*.  Raises UnreadableError."""

    def __init__(self, place: FileLine, words: list[str]) -> None:
        self.place = place
        self.subject = " ".join(words)
        self.command = ""
        self.options: dict[str, str] = {}
        self.arguments: list[str] = []
        pending = list(words)
        while pending:
            word = pending.pop(0)
            if word.startswith("--"):
                name, equals, value = word.partition("=")
                if name not in _LETTERS:
                    raise UnreadableError(place, f"ipvsadm has no option {name}; correct the rule")
                self._take(_LETTERS[name], value if equals else None, pending)
            elif word.startswith("-") and len(word) > 1:
                self._take_letters(word[1:], pending)
            else:
                self.arguments.append(word)
        if not self.command:
            raise UnreadableError(place, "has no command, such as -A or -a; write what ipvsadm -Sn prints")
        unfit = self.options.keys() - ACCEPTED.get(self.command, self.options.keys())
        if unfit:
            command, option = COMMANDS[self.command], OPTIONS[min(unfit)]
            raise UnreadableError(place, f"{command} has no {option}; remove it")
        if _OF_TUNNEL & self.options.keys() and "i" not in self.options:
            raise UnreadableError(place, "has tunnel options without -i; write -i, or remove them")
        if self.arguments and self.command != "set":
            raise UnreadableError(
                place, f"has {self.arguments[0]}, which belongs to no option; correct the rule"
            )
        if self.command == "set" and len(self.arguments) != 3:
            raise UnreadableError(place, "takes three times in seconds; correct the rule")
        if self.command == "set" and not all(NUMBER.fullmatch(each) for each in self.arguments):
            raise UnreadableError(place, "takes three times in seconds; correct the rule")

    def number(self, letter: str, least: int, most: int) -> int:
        """Return the number given with the option *letter*."""
        text = self.options[letter]
        if NUMBER.fullmatch(text) and least <= int(text) <= most:
            return int(text)
        raise UnreadableError(
            self.place, f"-{letter} {text} is not a number from {least} to {most}; correct the rule"
        )

    def _take_letters(self, letters: str, pending: list[str]) -> None:
        while letters:
            letter, letters = letters[0], letters[1:]
            if letter in WITH_VALUE or (letter == "p" and letters):
                self._take(letter, letters.removeprefix("=") or None, pending)
                return
            self._take(letter, None, pending)

    def _take(self, letter: str, value: str | None, pending: list[str]) -> None:
        """Record the option *letter*, with its *value* or the next of the *pending* words."""
        if letter in COMMANDS:
            if self.command:
                raise UnreadableError(self.place, "has several commands; write one in each line")
            self.command = letter
        elif letter not in OPTIONS:
            raise UnreadableError(self.place, f"ipvsadm has no option -{letter}; correct the rule")
        elif letter in self.options:
            raise UnreadableError(self.place, f"has {OPTIONS[letter]} twice; write it once")
        if letter in WITH_VALUE and value is None:
            if not pending:
                raise UnreadableError(
                    self.place, f"{OPTIONS.get(letter, f'--{letter}-daemon')} has no value; write it"
                )
            value = pending.pop(0)
        elif letter == "p" and value is None and pending and not pending[0].startswith("-"):
            value = pending.pop(0)
        if letter not in COMMANDS:
            self.options[letter] = value or ""
