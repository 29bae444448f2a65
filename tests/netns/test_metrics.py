"""A real Prometheus scrapes agents on real kernels; alerts and dashboard are evaluated over what it got."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import urllib.parse
from subprocess import DEVNULL

import pytest

from overlay.metrics.families import FAMILIES
from tests.netns.network import Network
from tests.netns.topology import ROOT, wait_until

ALERTS, DASHBOARD = ROOT / "docs" / "alerts.yml", ROOT / "docs" / "grafana.json"
PLACE = "127.0.0.1:9586"
SERVICE = """
[services.web]
address = "10.244.200.1"
ports = [80]
directors = ["paris"]
servers = ["tokyo"]
"""
CONFIG = """
global:
  scrape_interval: 1s
  evaluation_interval: 1s
rule_files: [{alerts}]
scrape_configs:
  - job_name: overlay
    static_configs:
      - targets: ["{place}"]
"""


@pytest.fixture(scope="module")
def pair(module_lab, tmp_path_factory):
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    made = Network(module_lab, tmp_path_factory.mktemp("metrics"), metrics=PLACE)
    paris, tokyo = made.host("paris"), made.host("tokyo")
    made.host("ghost", endpoint="192.0.2.99")
    made.more = SERVICE
    paris.start()
    tokyo.start()
    paris.wait_up(tokyo)
    yield paris, tokyo
    made.close()


def get(host, path):
    """Return the status and the body of a page."""
    done = host.namespace.completed("curl", "-sS", "-w", "%{http_code}", f"http://{PLACE}{path}")
    assert done.returncode == 0, done.stderr
    return int(done.stdout[-3:]), done.stdout[:-3]


@pytest.fixture(scope="module")
def prometheus(pair, tmp_path_factory):
    """Return a function that queries a Prometheus next to paris at a path of its HTTP API."""
    if shutil.which("prometheus") is None:
        pytest.skip("prometheus is not installed")
    paris, _ = pair
    directory = tmp_path_factory.mktemp("prometheus")
    (directory / "prometheus.yml").write_text(CONFIG.format(alerts=ALERTS, place=PLACE))
    with (directory / "log").open("w") as log:
        process = paris.namespace.popen(
            "prometheus", f"--config.file={directory}/prometheus.yml", f"--storage.tsdb.path={directory}/data",
            "--web.listen-address=127.0.0.1:9090", stdin=DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip

        def ask(path, **query):
            url = f"http://127.0.0.1:9090/api/v1/{path}?{urllib.parse.urlencode(query)}"
            answer = json.loads(paris.namespace.run("curl", "-sS", url))
            assert answer["status"] == "success", (query, answer)
            return answer["data"]

        def has_scraped():
            assert process.poll() is None, (directory / "log").read_text()
            done = paris.namespace.completed("curl", "-sSf", "http://127.0.0.1:9090/api/v1/targets")
            if done.returncode != 0:
                return False
            targets[:] = json.loads(done.stdout)["data"]["activeTargets"]
            return [each["health"] for each in targets] == ["up"]

        targets = []
        try:
            wait_until(has_scraped, what="a scrape by Prometheus")
        except AssertionError as error:
            raise AssertionError(f"{error}: {targets}") from None
        yield ask
        process.terminate()
        process.wait(30)


def test_prometheus_has_what_it_scraped(pair, prometheus):
    paris, tokyo = pair
    paris.ping(tokyo.address)

    def value(query):
        return [float(each["value"][1]) for each in prometheus("query", query=query)["result"]]

    # What it does not get within a second, it knows nothing of until it gets it again.
    for query in (
        'overlay_peer_state{peer="tokyo",state="up"}',
        'overlay_peer_receive_bytes_total{peer="tokyo"} > bool 100',
        "overlay_forwarder_up",
        'overlay_process_cpu_seconds_total{process="forwarder"} > bool 0',
        'overlay_service_state{service="web",state="up"}',
        'overlay_server_weight{service="web"}',
    ):
        wait_until(lambda query=query: value(query) == [1.0], what=query)
    metadata = prometheus("metadata")
    assert set(metadata) - {"up"} >= {name for name in FAMILIES if name.startswith("overlay_process")} - {
        "overlay_process_cpu_seconds_total"
    }


def test_alerts_are_loaded_and_evaluated_without_a_complaint(prometheus):
    def rules():
        return [rule for group in prometheus("rules")["groups"] for rule in group["rules"]]

    wait_until(lambda: all(each["health"] != "unknown" for each in rules()), what="the first evaluation")

    assert not [(each["name"], each["lastError"]) for each in rules() if each["health"] != "ok"]


def test_every_expression_of_the_dashboard_is_one_that_prometheus_takes(prometheus):
    panels = json.loads(DASHBOARD.read_text())["panels"]
    expressions = [target["expr"] for panel in panels for target in panel["targets"]]

    for each in expressions:
        query = each.replace("$job", "overlay").replace("$instance", ".*").replace("$__rate_interval", "1m")
        prometheus("query", query=query)


def test_promtool_finds_nothing_to_say_of_a_scrape(pair):
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed")
    paris, _ = pair
    _, text = get(paris, "/metrics")

    checked = paris.namespace.completed("promtool", "check", "metrics", stdin=text)

    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_names_of_peers_and_no_keys_or_endpoints_are_shown(pair):
    paris, tokyo = pair
    texts = []

    wait_until(
        lambda: texts.append(get(paris, "/metrics")[1]) or 'peer="tokyo"' in texts[-1],
        what="the forwarder to have answered in time",
    )
    text = texts[-1]
    assert tokyo.public_key not in text
    assert not re.search(r"192\.0\.2\.\d|2001:db8", text)


def test_health_follows_the_forwarder(pair):
    paris, _ = pair
    wait_until(lambda: get(paris, "/readyz")[0] == 200, what="readiness")
    pid = paris.status()["forwarder_pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_until(lambda: get(paris, "/healthz")[0] == 503, what="that the forwarder hangs")
        assert "did not answer within 2 s" in get(paris, "/healthz")[1]
        _, text = get(paris, "/metrics")
        assert "\noverlay_forwarder_up 0\n" in text
        assert "overlay_peer_receive_bytes_total{" not in text
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_until(lambda: get(paris, "/readyz")[0] == 200, what="readiness")
