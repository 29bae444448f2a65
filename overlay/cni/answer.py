"""The answer to a runtime, in the version of CNI that it speaks."""

from __future__ import annotations

import contextlib

from overlay.cni import namespace
from overlay.cni.conversation import NoAgentError, ask, control_path
from overlay.cni.errors import (
    CUT_OFF,
    INTERFACE_EXISTS,
    INVALID_CONFIGURATION,
    NOT_AVAILABLE,
    REFUSED,
    TRY_LATER,
    PluginError,
)

TYPE_CHECKING = False  # typing takes a while to load
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from overlay.cni.question import Question

# The kinds of the agent's refusals (overlay/answers/asked_container.py)
CODES = {"invalid": INVALID_CONFIGURATION, "exists": INTERFACE_EXISTS, "try_later": TRY_LATER}


def answer(question: Question) -> dict[str, Any] | None:
    """Return what to print, None for nothing.  Raises PluginError."""
    return COMMANDS[question.command](question)


def _add(question: Question) -> dict[str, Any]:
    if question.previous():
        raise PluginError(
            INVALID_CONFIGURATION, "overlay-cni makes an interface: it must be the first of the plugins"
        )
    path = control_path(question.agent)
    message = {
        "op": "attach",
        **_subject(question),
        "addresses": question.addresses(),
        "routes": question.routes(),
        "mac": question.mac(),
        "mtu": question.mtu(),
    }
    made = _accepted(ask(path, message, namespace.enter(question.namespace)))
    inner: dict[str, Any] = {"name": question.interface, "mac": made["mac"], "sandbox": question.namespace}
    if question.version == "1.1.0":
        inner["mtu"] = made["mtu"]
    return {
        "cniVersion": question.version,
        "interfaces": [{"name": made["outer"], "mac": made["outer_mac"]}, inner],
        "ips": [_ip(question.version, address, gateway) for address, gateway in made["addresses"]],
        # With gw: CHECK of the reference plugins does not find other routes again.
        "routes": [{"dst": network, "gw": gateway} for network, gateway in made["routes"]],
        "dns": question.dns(),
    }


def _del(question: Question) -> None:
    if not question.is_possible:
        return
    try:
        _accepted(ask(control_path(question.agent), {"op": "detach", **_subject(question)}))
    except NoAgentError:
        # The next agent notices that the interface is gone, with its namespace if not by this.
        mac = _mac_of(question)
        if mac and question.namespace:
            namespace.remove(question.namespace, question.interface, mac)


def _check(question: Question) -> None:
    previous = question.previous()
    if not previous:
        raise PluginError(INVALID_CONFIGURATION, "CHECK came without prevResult")
    path = control_path(question.agent)
    ips = previous.get("ips")
    texts = [each.get("address") for each in ips if isinstance(each, dict)] if isinstance(ips, list) else []
    addresses = [each.partition("/")[0] for each in texts if isinstance(each, str)]
    message = {"op": "check_attachment", **_subject(question), "addresses": addresses}
    _accepted(ask(path, message, namespace.enter(question.namespace)))


def _status(question: Question) -> None:
    try:
        found = _accepted(ask(control_path(question.agent), {"op": "can_attach"}))
    except NoAgentError as error:
        raise PluginError(NOT_AVAILABLE, error.message, error.details) from None
    if found["state"] == "no_subnet":
        raise PluginError(NOT_AVAILABLE, str(found["reason"]))
    if found["state"] == "cut_off":
        raise PluginError(CUT_OFF, str(found["reason"]))


def _gc(question: Question) -> None:
    message = {"op": "collect", "network": question.network, "valid": question.valid()}
    with contextlib.suppress(NoAgentError):  # the next agent finds what is gone
        _accepted(ask(control_path(question.agent), message))


COMMANDS: dict[str, Callable[[Question], dict[str, Any] | None]] = {
    "ADD": _add,
    "DEL": _del,
    "CHECK": _check,
    "STATUS": _status,
    "GC": _gc,
}


def _subject(question: Question) -> dict[str, str]:
    return {"network": question.network, "container": question.container, "interface": question.interface}


def _accepted(found: dict[str, Any]) -> dict[str, Any]:
    """Return the agent's answer unless it is a refusal."""
    if found.get("ok") is True:
        return found
    code = CODES.get(str(found.get("kind")), REFUSED)
    raise PluginError(
        code, str(found.get("error") or "the overlay agent refused without a reason: see its log")
    )


def _ip(version: str, address: str, gateway: str) -> dict[str, Any]:
    """Return an address of the second interface of a result."""
    is_ipv6 = ":" in address
    found: dict[str, Any] = {
        "interface": 1,
        "address": f"{address}/{128 if is_ipv6 else 32}",
        "gateway": gateway,
    }
    return {"version": "6" if is_ipv6 else "4", **found} if version.startswith("0.") else found


def _mac_of(question: Question) -> str | None:
    """Return the Ethernet address of the container's interface, by the result of ADD."""
    interfaces = question.previous().get("interfaces")
    for each in interfaces if isinstance(interfaces, list) else []:
        if isinstance(each, dict) and each.get("name") == question.interface and each.get("sandbox"):
            mac = str(each.get("mac"))
            try:
                return mac if len(bytes.fromhex(mac.replace(":", ""))) == 6 else None
            except ValueError:
                return None
    return None
