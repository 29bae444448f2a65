from __future__ import annotations

import json

ROWS = [
    {
        "network": "overlay", "container": "4a55ff4b00112233445566", "interface": "eth0",
        "addresses": ["10.244.1.2", "fd00:244:1::2"], "device": "oc123456789abc", "mac": "02:00:00:00:00:01",
    }
]  # fmt: skip


def test_containers_are_listed_with_ids_as_runtimes_show_them(overlay, agent):
    agent.rows["attachments"] = [ROWS]
    agent.answers["attachments"] = {"ok": True, "count": 1}

    result = overlay("cni", "list")

    assert result.stdout.splitlines() == [
        "CONTAINER     INTERFACE  NETWORK  ADDRESSES                 DEVICE",
        "4a55ff4b0011  eth0       overlay  10.244.1.2 fd00:244:1::2  oc123456789abc",
    ]


def test_containers_are_listed_as_json_with_whole_ids(overlay, agent):
    agent.rows["attachments"] = [ROWS]
    agent.answers["attachments"] = {"ok": True, "count": 1}

    assert json.loads(overlay("cni", "list", "--json").stdout) == {
        "schema": 1,
        "attachments": ROWS,
    }


def test_without_containers_it_says_so(overlay, agent):
    agent.answers["attachments"] = {"ok": True, "count": 0}

    result = overlay("cni", "list")

    assert (result.exit_code, result.stdout) == (0, "no containers are attached to the overlay of overlay0\n")


def test_agent_that_refuses_is_repeated(overlay, agent):
    agent.answers["attachments"] = {"ok": False, "kind": "failed", "error": "it is so"}

    result = overlay("cni", "list")

    assert (result.exit_code, result.stderr) == (1, "Error: it is so\n")
