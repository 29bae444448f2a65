"""The question of a runtime: the command and its subject in the environment, the network on standard input."""

from __future__ import annotations

import json
import re

from overlay.cni.errors import (
    INCOMPATIBLE_VERSION,
    INVALID_CONFIGURATION,
    INVALID_ENVIRONMENT,
    UNDECODABLE,
    UNSUPPORTED_FIELD,
    PluginError,
)

TYPE_CHECKING = False  # typing takes a while to load
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

# Specification: SPEC.md of CNI 1.1.0, and what each version before it brought
VERSIONS = ("0.3.1", "0.4.0", "1.0.0", "1.1.0")
COMMANDS = {"ADD": "0.3.1", "DEL": "0.3.1", "CHECK": "0.4.0", "STATUS": "1.1.0", "GC": "1.1.0"}
ENDING = ("DEL", "GC")
NEEDED = {
    "ADD": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    "DEL": ("CNI_CONTAINERID", "CNI_IFNAME"),
    "CHECK": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    "STATUS": (),
    "GC": (),
}
NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*")
INTERFACE = re.compile(r"(?!\.{1,2}\Z)[^/:%\s\0]{1,15}")

# Ours
SIZE = 16 * 1024 * 1024  # bytes of configuration; GC names all containers
NAME_SIZE = 256  # as in overlay.containers.addresses, with the two above; a test compares them
AGENT = "overlay0"  # the interface of the agent, unless "interface" says another
KNOWN_ARGS = {
    "IgnoreUnknown",
    "IP",
    "MAC",
    "K8S_POD_NAME",
    "K8S_POD_NAMESPACE",
    "K8S_POD_INFRA_CONTAINER_ID",
    "K8S_POD_UID",
}


class Question:
    """One question, parsed and checked.  Raises PluginError for an invalid one."""

    def __init__(self, environment: Mapping[str, str], configuration: bytes) -> None:
        self.command = environment.get("CNI_COMMAND", "")
        if self.command not in COMMANDS:
            raise PluginError(
                INVALID_ENVIRONMENT,
                f"unknown CNI_COMMAND: {self.command[:40]!r}",
                _listed((*COMMANDS, "VERSION")),
            )
        self.configuration = read_object(configuration)
        self.version = self._read_version()
        self.container = environment.get("CNI_CONTAINERID", "")
        self.interface = environment.get("CNI_IFNAME", "")
        self.namespace = environment.get("CNI_NETNS", "")
        self._check_presence(environment)
        self.network = self._text("name", "")
        objection = self._objection_to_names()
        self.is_possible = objection is None
        """Whether an attachment can have these names; for DEL, one that cannot exist is gone."""
        if objection is not None and self.command != "DEL":
            raise objection
        self.agent = self._text("interface", AGENT)
        if not INTERFACE.fullmatch(self.agent):
            raise PluginError(
                INVALID_CONFIGURATION, f"interface {self.agent[:40]!r} is not a name of an interface"
            )
        if self.command in ENDING:  # the network may have been changed since ADD; only the subject matters
            self._arguments: dict[str, str] = {}
            return
        if self.configuration.get("ipam"):
            raise PluginError(
                UNSUPPORTED_FIELD, "overlay-cni assigns addresses of the host's subnets itself: remove ipam"
            )
        self._arguments = read_arguments(environment.get("CNI_ARGS", ""))

    # The request

    def addresses(self) -> list[str]:
        """Return the addresses that the container should have, without prefix lengths."""
        runtime, args = self._object("runtimeConfig"), self._object("args").get("cni")
        asked = runtime.get("ips") or (args.get("ips") if isinstance(args, dict) else None) or []
        if not isinstance(asked, list) or not all(isinstance(each, str) for each in asked):
            raise PluginError(INVALID_CONFIGURATION, "ips is not a list of addresses")
        asked = asked or [each for each in self._arguments.get("IP", "").split(",") if each]
        return [str(each).partition("/")[0] for each in asked]

    def mac(self) -> str | None:
        """Return the Ethernet address that the container should have; None lets the agent choose."""
        args = self._object("args").get("cni")
        asked = (
            self._object("runtimeConfig").get("mac")
            or (args.get("mac") if isinstance(args, dict) else None)
            or self._arguments.get("MAC")
        )
        if asked is not None and not isinstance(asked, str):
            raise PluginError(INVALID_CONFIGURATION, "mac is not an Ethernet address")
        return asked

    def mtu(self) -> int | None:
        """Return the upper bound of the MTU; None leaves it to the tunnel."""
        asked = self.configuration.get("mtu") or None
        if asked is not None and type(asked) is not int:
            raise PluginError(INVALID_CONFIGURATION, "mtu is not a number of bytes")
        return asked

    def routes(self) -> list[str] | None:
        """Return the networks that the container should have routes to; None for default routes."""
        asked = self.configuration.get("routes")
        if asked is None:
            return None
        if not isinstance(asked, list):
            raise PluginError(INVALID_CONFIGURATION, "routes is not a list")
        found = [each.get("dst") if isinstance(each, dict) else each for each in asked]
        if not all(isinstance(each, str) for each in found):
            raise PluginError(
                INVALID_CONFIGURATION, 'routes has no networks, each as {"dst": "10.244.0.0/16"}'
            )
        return [str(each) for each in found]

    def dns(self) -> dict[str, Any]:
        """Return the network's settings for name servers, which the runtime gets back unchanged."""
        return self._object("dns")

    def previous(self) -> dict[str, Any]:
        """Return the result of ADD, as the runtime kept it; empty if it has none."""
        return self._object("prevResult")

    def valid(self) -> list[list[str]]:
        """Return the attachments that should stay, each as container and interface."""
        rows = self.configuration.get(
            "cni.dev/valid-attachments", self.configuration.get("cni.dev/attachments")
        )
        if not isinstance(rows, list):
            raise PluginError(
                INVALID_CONFIGURATION, "GC came without cni.dev/valid-attachments, so nothing is removed"
            )
        found = [
            [each.get("containerID"), each.get("ifname")] if isinstance(each, dict) else [None, None]
            for each in rows
        ]
        if not all(isinstance(text, str) for row in found for text in row):
            raise PluginError(
                INVALID_CONFIGURATION, "cni.dev/valid-attachments has no containerID and ifname"
            )
        return [[str(text) for text in row] for row in found]

    # Parts

    def _read_version(self) -> str:
        version = self.configuration.get("cniVersion", "0.1.0")  # the default of the specification
        if version not in VERSIONS:
            raise PluginError(
                INCOMPATIBLE_VERSION,
                "incompatible CNI versions",
                f"the network's is {str(version)[:40]!r}, and this plugin supports {_listed(VERSIONS)}",
            )
        needed = COMMANDS[self.command]
        if VERSIONS.index(version) < VERSIONS.index(needed):
            raise PluginError(
                INCOMPATIBLE_VERSION,
                f"CNI {version} has no {self.command}",
                f"{needed} added it: write that as cniVersion",
            )
        return str(version)

    def _check_presence(self, environment: Mapping[str, str]) -> None:
        missing = [name for name in NEEDED[self.command] if not environment.get(name)]
        if missing:
            raise PluginError(INVALID_ENVIRONMENT, f"required env variables [{','.join(missing)}] missing")

    def _objection_to_names(self) -> PluginError | None:
        """Return what is wrong with the names of container, interface and network."""
        if NEEDED[self.command]:
            if not _is_name(self.container):
                return PluginError(
                    INVALID_ENVIRONMENT, f"CNI_CONTAINERID {self.container[:80]!r} is not an id"
                )
            if not _is_interface(self.interface):
                return PluginError(
                    INVALID_ENVIRONMENT, f"CNI_IFNAME {self.interface[:40]!r} is not a name of an interface"
                )
        if not _is_name(self.network):
            return PluginError(
                INVALID_CONFIGURATION,
                f"name {self.network[:80]!r} is not a name of a network",
                "it must consist of letters, digits, '_', '.' and '-', and begin with a letter or digit",
            )
        return None

    def _text(self, key: str, default: str) -> str:
        found = self.configuration.get(key, default)
        if not isinstance(found, str):
            raise PluginError(INVALID_CONFIGURATION, f"{key} is not a string")
        return found

    def _object(self, key: str) -> dict[str, Any]:
        found = self.configuration.get(key)
        if found is not None and not isinstance(found, dict):
            raise PluginError(INVALID_CONFIGURATION, f"{key} is not an object")
        return found or {}


def read_object(configuration: bytes) -> dict[str, Any]:
    """Return the JSON object on standard input.  Raises PluginError."""
    try:
        found = json.loads(configuration)
    except (ValueError, RecursionError) as error:
        raise PluginError(UNDECODABLE, "the network configuration is not JSON", str(error)[:200]) from None
    if not isinstance(found, dict):
        raise PluginError(UNDECODABLE, "the network configuration is not a JSON object")
    return found


def read_arguments(text: str) -> dict[str, str]:
    """Return CNI_ARGS, ``K=V;K=V``.  Raises PluginError for unknown ones, unless these should be ignored."""
    found: dict[str, str] = {}
    for each in text.split(";"):
        key, equals, value = each.partition("=")
        if each and not equals:
            raise PluginError(INVALID_ENVIRONMENT, f"CNI_ARGS has {each[:80]!r} without a value")
        if each:
            found[key] = value
    unknown = sorted(found.keys() - KNOWN_ARGS)
    if unknown and found.get("IgnoreUnknown", "").lower() not in {"1", "true"}:
        raise PluginError(
            INVALID_ENVIRONMENT,
            f"CNI_ARGS has unknown arguments [{','.join(unknown)[:200]}]",
            "IgnoreUnknown=1 permits them",
        )
    return found


def _is_name(text: str) -> bool:
    return len(text) <= NAME_SIZE and NAME.fullmatch(text) is not None


def _is_interface(text: str) -> bool:
    return INTERFACE.fullmatch(text) is not None and text.isprintable() and len(text.encode()) <= 15


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names)
