"""Questions of runtimes, according to CNI's SPEC.md, and as podman sends them."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.cni.errors import PluginError
from overlay.cni.question import INTERFACE, NAME, NAME_SIZE, VERSIONS, Question, read_arguments, read_object
from overlay.containers import addresses

ENVIRONMENT = {
    "CNI_COMMAND": "ADD",
    "CNI_CONTAINERID": "4a55ff4b",
    "CNI_NETNS": "/run/netns/netns-bb05ece3",
    "CNI_IFNAME": "eth0",
    "CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAME=happy_golick",
    "CNI_PATH": "/usr/lib/cni",
}
NETWORK = {"cniVersion": "1.0.0", "name": "overlay", "type": "overlay-cni"}


def question(command="ADD", environment=(), without=(), **keys):
    given_environment = {**ENVIRONMENT, "CNI_COMMAND": command, **dict(environment)}
    for name in without:
        del given_environment[name]
    network = {key: value for key, value in {**NETWORK, **keys}.items() if value is not None}
    return Question(given_environment, json.dumps(network).encode())


def refusal(*arguments, **keys):
    with pytest.raises(PluginError) as refused:
        question(*arguments, **keys)
    return refused.value


def test_what_podman_sends_is_read():
    """Its first plugin of two, with keys that belong to other plugins."""
    asked = question(bridge="cni0")

    assert (asked.command, asked.version, asked.network) == ("ADD", "1.0.0", "overlay")
    assert (asked.container, asked.interface) == ("4a55ff4b", "eth0")
    assert (asked.agent, asked.addresses(), asked.routes(), asked.mac(), asked.mtu()) == (
        "overlay0",
        [],
        None,
        None,
        None,
    )


@pytest.mark.parametrize(
    ("command", "since"), [("ADD", 0), ("DEL", 0), ("CHECK", 1), ("STATUS", 3), ("GC", 3)]
)
@pytest.mark.parametrize("version", VERSIONS)
def test_commands_are_those_of_each_version(command, since, version):
    if VERSIONS.index(version) >= since:
        assert question(command, cniVersion=version).version == version
    else:
        assert refusal(command, cniVersion=version).code == 1


@pytest.mark.parametrize("version", ["0.1.0", "0.3.0", "2.0.0", "1.1", "", None, 1.0, [], "1.0.0\n"])
def test_other_versions_are_incompatible(version):
    refused = refusal(cniVersion=version)

    assert (refused.code, refused.message) == (1, "incompatible CNI versions")
    assert "0.3.1, 0.4.0, 1.0.0, 1.1.0" in refused.details


@pytest.mark.parametrize("command", ["", "add", "ADD ", "VERSION", "FLY", "x" * 1000])
def test_other_commands_are_wrong_environment(command):
    refused = refusal(command)

    assert refused.code == 4
    assert refused.message.startswith("unknown CNI_COMMAND")
    assert len(refused.message) < 100


@pytest.mark.parametrize(
    ("command", "needed"),
    [
        ("ADD", {"CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"}),
        ("CHECK", {"CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"}),
        ("DEL", {"CNI_CONTAINERID", "CNI_IFNAME"}),
        ("GC", set()),
        ("STATUS", set()),
    ],
)
def test_environment_is_what_each_command_needs(command, needed):
    for name in ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS", "CNI_PATH"):
        if name in needed:
            refused = refusal(command, without=[name], cniVersion="1.1.0")
            assert (refused.code, refused.message) == (4, f"required env variables [{name}] missing")
        else:
            question(command, without=[name], cniVersion="1.1.0")
    if needed:
        missing = refusal(command, without=needed, cniVersion="1.1.0").message
        assert all(name in missing for name in needed)


def test_del_may_come_without_a_namespace():
    assert question("DEL", {"CNI_NETNS": ""}).namespace == ""


@pytest.mark.parametrize(
    "wrong",
    [
        {"CNI_CONTAINERID": "../x"}, {"CNI_CONTAINERID": "-x"}, {"CNI_CONTAINERID": "a\n"}, {"CNI_IFNAME": "a/b"},
        {"CNI_IFNAME": "."}, {"CNI_IFNAME": "x" * 16}, {"CNI_IFNAME": "a b"}, {"CNI_IFNAME": "é" * 8}, {"CNI_ARGS": "IP"},
        {"CNI_ARGS": "WHAT=1"}, {"CNI_ARGS": "IgnoreUnknown=0;WHAT=1"},
    ],
)  # fmt: skip
def test_wrong_values_of_the_environment_are_told_as_such(wrong):
    assert refusal(environment=wrong).code == 4


@pytest.mark.parametrize("network", [b"", b"{", b"[]", b"7", b"\xff", b"[" * 100_000, b'{"name": "x"'])
def test_what_is_no_json_object_cannot_be_decoded(network):
    with pytest.raises(PluginError) as refused:
        Question(ENVIRONMENT, network)

    assert refused.value.code == 6


@pytest.mark.parametrize(
    "wrong",
    [{"name": None}, {"name": ""}, {"name": "a/b"}, {"name": 7}, {"interface": "a/b"}, {"interface": []}],
)
def test_wrong_values_of_the_network_are_told_as_such(wrong):
    assert refusal(**wrong).code == 7


def test_addresses_are_ours_to_give_out():
    assert refusal(ipam={"type": "host-local"}).code == 2
    question(ipam={})


@pytest.mark.parametrize(
    ("environment", "network"),
    [
        ({"CNI_CONTAINERID": "../x"}, {}),
        ({"CNI_CONTAINERID": "x" * 257}, {}),
        ({"CNI_IFNAME": "eth%d"}, {}),
        ({"CNI_IFNAME": "\udcff"}, {}),
        ({}, {"name": "a/b"}),
    ],
)
def test_del_of_what_no_attachment_can_be_called_has_nothing_to_do_and_add_is_refused(environment, network):
    assert not question("DEL", environment, **network).is_possible

    assert refusal("ADD", environment, **network).code == (4 if environment else 7)


def test_del_and_gc_do_not_fail_for_what_was_changed_in_the_network_since_add():
    for command in ("DEL", "GC"):
        question(command, {"CNI_ARGS": "WHAT=1"}, ipam={"type": "host-local"}, cniVersion="1.1.0")


def test_names_are_those_that_the_agent_has():
    """The plugin does not import what the agent does."""
    assert (NAME.pattern, NAME_SIZE) == (addresses.NAME.pattern, addresses.NAME_SIZE)
    assert INTERFACE.pattern == addresses.INTERFACE_NAME.pattern


@pytest.mark.parametrize(
    "wrong",
    [
        {"runtimeConfig": []}, {"runtimeConfig": {"ips": "10.0.0.1"}}, {"runtimeConfig": {"ips": [1]}}, {"args": 7},
        {"runtimeConfig": {"mac": 7}}, {"mtu": "1400"}, {"mtu": True}, {"routes": {}}, {"routes": [7]}, {"routes": [{}]},
        {"dns": []}, {"prevResult": "x"},
    ],
)  # fmt: skip
def test_what_is_asked_for_in_a_wrong_form_is_a_wrong_network(wrong):
    with pytest.raises(PluginError) as refused:
        everything(question(**wrong))

    assert refused.value.code == 7


def everything(asked):
    return asked.addresses(), asked.mac(), asked.mtu(), asked.routes(), asked.dns(), asked.previous()


def test_addresses_and_mac_are_asked_for_in_three_ways():
    capability = question(runtimeConfig={"ips": ["10.96.5.77/24"], "mac": "02:00:00:00:00:01"})
    convention = question(args={"cni": {"ips": ["10.96.5.77"], "mac": "02:00:00:00:00:01"}})
    arguments = question(environment={"CNI_ARGS": "IP=10.96.5.77;MAC=02:00:00:00:00:01"})

    for each in (capability, convention, arguments):
        assert (each.addresses(), each.mac()) == (["10.96.5.77"], "02:00:00:00:00:01")


def test_routes_are_objects_as_the_specification_has_them_or_texts():
    assert question(routes=[{"dst": "10.244.0.0/16", "gw": "10.0.0.1"}, "fd00::/8"]).routes() == [
        "10.244.0.0/16",
        "fd00::/8",
    ]
    assert question(routes=[]).routes() == []


def test_gc_names_what_is_valid_by_the_key_of_today_and_by_the_first_one():
    rows = [{"containerID": "a", "ifname": "eth0"}]
    for key in ("cni.dev/valid-attachments", "cni.dev/attachments"):
        assert question("GC", cniVersion="1.1.0", **{key: rows}).valid() == [["a", "eth0"]]


@pytest.mark.parametrize(
    "rows", [None, {}, [7], [{}], [{"containerID": "a"}], [{"containerID": 1, "ifname": "e"}]]
)
def test_gc_without_what_is_valid_removes_nothing(rows):
    with pytest.raises(PluginError) as refused:
        question("GC", cniVersion="1.1.0", **{"cni.dev/valid-attachments": rows}).valid()

    assert refused.value.code == 7


@given(st.binary() | st.recursive(st.none() | st.booleans() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)).map(lambda x: json.dumps(x).encode()))  # fmt: skip
def test_any_bytes_are_a_question_or_a_plugin_error(network):
    with contextlib.suppress(PluginError):
        everything(Question(ENVIRONMENT, network))


@given(st.dictionaries(st.sampled_from([*ENVIRONMENT]), st.text()))
def test_any_environment_is_a_question_or_a_plugin_error(environment):
    with contextlib.suppress(PluginError):
        everything(Question(environment, json.dumps(NETWORK).encode()))


@given(st.text())
def test_any_arguments_are_read_or_a_plugin_error(text):
    with contextlib.suppress(PluginError):
        read_arguments(text)


def test_object_is_read_as_it_is():
    assert read_object(b'{"a": [1]}') == {"a": [1]}
