"""Settings of wg-quick without a counterpart in a peers file, and what to use instead."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from overlay.importing.places import Remarks
    from overlay.wg_quick.conf import Setting

COMMANDS = {"PreUp", "PostUp", "PreDown", "PostDown"}


def remark_on(setting: Setting, remarks: Remarks) -> None:
    """Add a remark on *setting*, unless it asks for what happens anyway.

    Its value may be a secret, so it is not quoted.
    """
    value = setting.value.lower()
    if setting.key == "DNS":
        reason = "the agent does not change the resolver; set the name servers another way, such as with resolvectl"
    elif setting.key == "Table":
        if value == "auto":
            return
        reason = "the agent makes the routes of peers itself, in tables of its own"
    elif setting.key == "SaveConfig":
        if value == "false":
            return
        reason = "the peers file is not written back; write into it what should stay"
    else:
        reason = _instead_of(value)
    remarks.add(setting.place, setting.key, reason)


def _instead_of(command: str) -> str:
    """Return what to do instead of *command*."""
    if "masquerade" in command:
        return (
            "no command is carried over; in place of a rule that masquerades, write masquerade = true into [network], "
            "or start the agent with --masquerade"
        )
    if "forward" in command and "sysctl" in command:
        return (
            "no command is carried over; `overlay up --fix-sysctl` turns forwarding on while the agent runs"
        )
    if "forward" in command:
        return (
            "no command is carried over; in place of a rule that lets packets pass, write forward = true into "
            "[network], or start the agent with --forward"
        )
    return "no command is carried over; have the service that starts the agent run it, as ExecStartPost= of a unit does"
