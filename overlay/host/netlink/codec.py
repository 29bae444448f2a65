"""Messages about links, addresses and rules, written and read by pyroute2, which knows their attributes by name.

Routes, of which there may be many, are written and read by hand (`rtnetlink`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from pyroute2.netlink.rtnl.fibmsg import fibmsg
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from overlay.linux import NLM_F_REQUEST

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Attribute: TypeAlias = tuple[str, object]

LINK, ADDRESS, RULE = ifinfmsg, ifaddrmsg, fibmsg


def encode(
    form: Any, kind: int, flags: int, fields: Mapping[str, object], attributes: Sequence[Attribute] = ()
) -> bytes:
    """Return the request of *kind* in one of the forms above; *fields* are those of its struct."""
    message = form()
    message["header"]["type"] = kind
    message["header"]["flags"] = NLM_F_REQUEST | flags
    for name, value in fields.items():
        message[name] = value
    message["attrs"] = list(attributes)
    message.encode()
    return bytes(message.data)


def decode(form: Any, raw: bytes) -> Any:
    """Return the message *raw*: its fields by subscript, its attributes by get_attr()."""
    message = form(raw)
    message.decode()
    return message
