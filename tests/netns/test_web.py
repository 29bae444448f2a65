"""The page with a real agent: everything that it requests is answered in the form that it expects."""

from __future__ import annotations

import json
from subprocess import DEVNULL, PIPE

import pytest

from overlay.records.history import VALUES
from tests.netns.network import PATIENCE, PYTHON, Network
from tests.netns.topology import wait_until

GET = """
import http.client, sys
connection = http.client.HTTPConnection("127.0.0.1", 8051, timeout=20)
connection.request("GET", sys.argv[1])
reply = connection.getresponse()
print(reply.status, reply.read().decode())
"""


@pytest.fixture(scope="module")
def site(module_lab, tmp_path_factory):
    """Return a connected host, its peer, and a function that requests a path of the host's page."""
    network = Network(module_lab, tmp_path_factory.mktemp("web"))
    paris, tokyo = network.host("paris"), network.host("tokyo")
    network.host("ghost", endpoint="192.0.2.99")
    paris.start()
    tokyo.start()
    paris.wait_up(tokyo)
    page = paris.namespace.popen(PYTHON, "-m", "overlay", "web", stdin=DEVNULL, stdout=PIPE)
    module_lab.on_exit(lambda: module_lab.end_process(page))
    assert page.stdout.readline() == "http://127.0.0.1:8051/\n"

    def get(path):
        status, _, body = paris.namespace.python(GET, path).partition(" ")
        return int(status), json.loads(body)

    wait_until(lambda: get("/api/status")[0] == 200, PATIENCE, "the agent answers the page")
    yield paris, tokyo, get
    network.close()


def test_each_question_of_the_page_is_answered_by_a_real_agent(site):
    _, tokyo, get = site

    told = {name: get(f"/api/{name}") for name in ("status", "history", "services", "events", "doctor")}

    assert {status for status, _ in told.values()} == {200}
    assert {body["schema"] for _, body in told.values()} == {1}
    states = {row["name"]: row["state"] for row in told["status"][1]["peers"]}
    assert states[tokyo.name] == "up"
    rows = {row["name"]: row for row in told["history"][1]["peers"]}
    assert rows.keys() == states.keys()
    assert rows[tokyo.name].keys() >= set(VALUES)
    assert told["services"][1]["services"] == []
    texts = [event["text"] for event in told["events"][1]["events"] if event["peer"] == tokyo.name]
    assert any(text.startswith("handshake completed") for text in texts)
    found = told["doctor"][1]["findings"]
    assert any(each["name"] == "forwarding" and "sysctl" in each["remedy"] for each in found)
    assert {"severity", "problem", "peer"} <= found[0].keys()


def fields(document):
    """Return the names of fields in *document* by their position; the values may change in the meantime, and a reason
    for drops may be new.
    """
    if isinstance(document, dict):
        return {name: None if name == "drops" else fields(each) for name, each in document.items()}
    return (
        [fields(each) for each in document if isinstance(each, dict)] if isinstance(document, list) else None
    )


def test_the_page_tells_what_the_command_prints(site):
    paris, _, get = site

    of_page, printed = get("/api/status")[1], json.loads(paris.overlay("status", "--json").stdout)

    assert fields(of_page) == fields(printed)
    constant = ("node", "interface", "mtu_bytes", "port", "public_key", "peers_file", "pid")
    assert [of_page[name] for name in constant] == [printed[name] for name in constant]
    of_page, printed = get("/api/doctor")[1], json.loads(paris.overlay("doctor", "--json").stdout)
    assert of_page.keys() == printed.keys()
    assert of_page["peers"] == printed["peers"]


def test_what_passes_is_in_the_history_with_its_round_trip(site):
    paris, tokyo, get = site

    def last():
        paris.namespace.completed("ping", "-c3", "-i0.1", "-s1000", tokyo.address)
        row = get(f"/api/history?name={tokyo.name}&samples=6")[1]["peers"][0]
        return any(row["sent_bytes_per_second"] or ()) and any(row["received_bytes_per_second"] or ())

    wait_until(last, 1.5 * PATIENCE, "a sample with packets in both directions")


def test_the_page_outlives_its_agent(site):
    paris, tokyo, get = site
    paris.stop()
    try:
        wait_until(lambda: get("/api/status")[0] == 503, PATIENCE, "the page to say that there is no agent")
        # An answer is served again for a while.
        wait_until(lambda: get("/api/events")[0] == 503, PATIENCE, "no events of before")
        assert get("/api/events")[1]["error"]["kind"] == "no_agent"
    finally:
        paris.start()
        paris.wait_up(tokyo)
    wait_until(lambda: get("/api/status")[0] == 200, PATIENCE, "the agent answers the page again")
