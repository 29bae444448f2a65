"""Importing as tests do it: texts in, a peers file and remarks out, without files."""

from __future__ import annotations

from pathlib import Path

import pytest

from overlay.importing.places import Remarks
from overlay.services.importing.composing import ExistingFile, compose
from overlay.services.importing.keepalived import read_keepalived
from overlay.services.importing.lines import File
from overlay.services.importing.rules import read_rules
from peers import toml

PATH = Path("/etc/overlay/peers.toml")
PORTS = {("http", "tcp"): 80, ("domain", "udp"): 53}


def nothing(pattern, beside):
    return []


def port_of(name, protocol):
    return PORTS.get((name, protocol))


def refusal(error, call, *arguments, **fields):
    """Return the *error* that *call* raises."""
    with pytest.raises(error) as raised:
        call(*arguments, **fields)
    return raised.value


class Imported:
    """The output of an import, its remarks, and the table that the reader of peers files makes of it."""

    def __init__(self, plan, remarks, directors, known):
        self.plan = plan
        self.text = compose(plan, remarks, "imported", directors, known)
        self.remarks = [str(each) for each in remarks.all()]
        before = "" if known is None else known.text
        self.table = toml.parse(f"{before}\n{self.text}", PATH) if self.text else None

    @property
    def service(self):
        (service,) = self.table.services.values()
        return service


def keepalived(text, directors=(), peers="", config_id=None, include=nothing):
    remarks = Remarks()
    plan = read_keepalived(File("k.conf", text), include, remarks, config_id)
    return Imported(plan, remarks, directors, _known(peers))


def rules(text, directors=(), peers=""):
    remarks = Remarks()
    plan = read_rules(File("rules", text), port_of, remarks)
    return Imported(plan, remarks, directors, _known(peers))


def _known(peers):
    return ExistingFile(PATH, peers, toml.parse(peers, PATH)) if peers else None


def virtual_server(content="", servers="real_server 10.0.0.2 80 {\n}\n", head="10.9.9.9 80", protocol="TCP"):
    return f"virtual_server {head} {{\nlb_kind TUN\nprotocol {protocol}\n{content}\n{servers}}}\n"


def real_server(content="", address="10.0.0.2", port="80"):
    return f"real_server {address} {port} {{\n{content}\n}}\n"
