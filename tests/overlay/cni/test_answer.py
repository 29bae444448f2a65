"""Answers to runtimes, made from the agent's; tests/netns/test_cni.py has real agents."""

from __future__ import annotations

import json

import pytest

from overlay.cni import answer as answers
from overlay.cni.answer import answer
from overlay.cni.conversation import NoAgentError
from overlay.cni.errors import PluginError
from overlay.cni.question import Question

MADE = {
    "ok": True,
    "outer": "oc1",
    "outer_mac": "ee:ee:ee:ee:ee:ee",
    "mac": "02:00:00:00:00:01",
    "mtu": 1420,
    "addresses": [["10.244.1.2", "169.254.1.1"]],
    "routes": [["0.0.0.0/0", "169.254.1.1"]],
}


@pytest.fixture
def asked(monkeypatch):
    """Start an agent that answers what is put into the list, and records its questions."""
    told, replies = [], []

    def ask(path, message, descriptors=()):
        told.append(message)
        reply = replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return reply

    monkeypatch.setattr(answers, "ask", ask)
    monkeypatch.setattr(answers.namespace, "enter", lambda path: [])
    return told, replies


def question(command, version="1.1.0", **keys):
    environment = {
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": "web",
        "CNI_NETNS": "/run/netns/web",
        "CNI_IFNAME": "eth0",
    }
    network = {"cniVersion": version, "name": "overlay", **keys}
    return Question(environment, json.dumps(network).encode())


def test_agent_is_asked_for_the_interface_of_the_container(asked):
    told, replies = asked
    replies.append(MADE)

    answer(question("ADD", mtu=1400, routes=[{"dst": "10.0.0.0/8"}]))

    assert told == [
        {
            "op": "attach", "network": "overlay", "container": "web", "interface": "eth0",
            "addresses": [], "routes": ["10.0.0.0/8"], "mac": None, "mtu": 1400,
        }
    ]  # fmt: skip


def test_del_of_what_cannot_be_attached_asks_nobody(asked):
    told, _ = asked

    assert answer(question("DEL", name="a/b")) is None
    assert not told


@pytest.mark.parametrize(
    ("kind", "code"), [("invalid", 7), ("exists", 100), ("try_later", 11), ("failed", 101), (None, 101)]
)
@pytest.mark.parametrize("command", ["ADD", "DEL", "CHECK", "GC"])
def test_refusals_of_the_agent_have_codes(asked, command, kind, code):
    _, replies = asked
    replies.append({"ok": False, "kind": kind, "error": "it is so"})
    keys = {"prevResult": {"ips": []}} if command == "CHECK" else {"cni.dev/valid-attachments": []}

    with pytest.raises(PluginError) as refused:
        answer(question(command, **keys))

    assert (refused.value.code, refused.value.message) == (code, "it is so")


def test_plugin_is_the_first_of_a_chain(asked):
    with pytest.raises(PluginError) as refused:
        answer(question("ADD", prevResult={"interfaces": []}))

    assert refused.value.code == 7


@pytest.mark.parametrize(("state", "code"), [("no_subnet", 50), ("cut_off", 51)])
def test_status_has_two_codes(asked, state, code):
    _, replies = asked
    replies.append({"ok": True, "state": state, "reason": "it is so"})

    with pytest.raises(PluginError) as refused:
        answer(question("STATUS"))

    assert (refused.value.code, refused.value.message) == (code, "it is so")


def test_without_an_agent_status_is_50_and_nothing_else_than_add_and_check_fails(asked):
    _, replies = asked
    codes = {}
    for command in ("STATUS", "ADD", "CHECK", "DEL", "GC"):
        replies.append(NoAgentError(11, "no agent"))
        try:
            keys = {"prevResult": {"ips": []}} if command == "CHECK" else {"cni.dev/valid-attachments": []}
            codes[command] = answer(question(command, **keys))
        except PluginError as error:
            codes[command] = error.code

    assert codes == {"STATUS": 50, "ADD": 11, "CHECK": 11, "DEL": None, "GC": None}


@pytest.mark.parametrize(
    "interfaces",
    [None, 7, [7], [{}], [{"name": "eth0", "mac": "x", "sandbox": "s"}], [{"name": "eth0", "mac": "02:00:00:00:00:zz", "sandbox": "s"}],
     [{"name": "eth0", "mac": "02:00:00:00:00:01"}]],
)  # fmt: skip
def test_del_without_an_agent_removes_nothing_that_add_did_not_make(asked, monkeypatch, interfaces):
    _, replies = asked
    replies.append(NoAgentError(11, "no agent"))
    removed = []
    monkeypatch.setattr(answers.namespace, "remove", lambda *arguments: removed.append(arguments))

    answer(question("DEL", prevResult={"interfaces": interfaces}))

    assert removed == []


@pytest.mark.parametrize("ips", [None, 7, [7], [{"address": 7}], {}])
def test_check_takes_any_result(asked, ips):
    told, replies = asked
    replies.append({"ok": True})

    answer(question("CHECK", prevResult={"ips": ips, "x": 1}))

    assert told[0]["addresses"] == []
