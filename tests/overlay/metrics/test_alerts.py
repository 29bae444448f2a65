"""docs/alerts.yml and docs/grafana.json: they use existing metrics, and the alerts fire when they should."""

from __future__ import annotations

import json
import re
import shutil
import subprocess

import pytest

from overlay.metrics.families import FAMILIES
from overlay.status import STATES
from tests.test_imports import ROOT

ALERTS, DASHBOARD = ROOT / "docs" / "alerts.yml", ROOT / "docs" / "grafana.json"
TARGET_LABELS = {"job", "instance"}
NAME = re.compile(r"\boverlay_[a-z_]+\b(?:\{([^}]*)\})?")
MATCHER = re.compile(r'(\w+)(=~|!~|!=|=)"([^"]*)"')

STORY = """
rule_files: [{alerts}]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - series: 'overlay_peer_state{{job="overlay",instance="paris",peer="tokyo",state="unreachable"}}'
        values: '1x20'
      - series: 'overlay_peer_state{{job="overlay",instance="paris",peer="rome",state="idle"}}'
        values: '1x20'
      - series: 'overlay_dropped_packets_total{{job="overlay",instance="paris",reason="tun_full"}}'
        values: '0+600x20'
      - series: 'overlay_drop_reason_info{{job="overlay",instance="paris",reason="tun_full",cause="here",description="arrived faster"}}'
        values: '1x20'
      - series: 'overlay_dropped_packets_total{{job="overlay",instance="paris",reason="mac1"}}'
        values: '0+600x20'
      - series: 'overlay_drop_reason_info{{job="overlay",instance="paris",reason="mac1",cause="stranger",description="was forged"}}'
        values: '1x20'
    alert_rule_test:
      - eval_time: 2m
        alertname: OverlayPeerInTrouble
      - eval_time: 6m
        alertname: OverlayPeerInTrouble
        exp_alerts:
          - exp_labels: {{severity: warning, job: overlay, instance: paris, peer: tokyo, state: unreachable}}
            exp_annotations:
              summary: "tokyo is unreachable, seen from paris"
              description: "Run `overlay doctor tokyo` on that host."
      - eval_time: 15m
        alertname: OverlayDrops
        exp_alerts:
          - exp_labels: {{severity: warning, job: overlay, instance: paris, reason: tun_full, cause: here, description: arrived faster}}
            exp_annotations:
              summary: "paris drops packets: tun_full"
              description: "10 packets per second.  Such a packet arrived faster."
"""


def expressions():
    """Return all expressions of the dashboard and of the alerts."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    found = [target["expr"] for panel in panels for target in panel["targets"]]
    return found + re.findall(r"expr: (?:\|\n +)?(.+)", ALERTS.read_text())


@pytest.mark.parametrize("expression", expressions())
def test_metrics_and_labels_that_are_named_are_there(expression):
    found = list(NAME.finditer(expression))
    assert found or expression.startswith("up{")
    for match in found:
        family = FAMILIES[match[0].partition("{")[0]]
        for label, _, value in MATCHER.findall(match[1] or ""):
            assert label in {*family.labels, *TARGET_LABELS}, match[0]
            if label == "state" and family.name.startswith("overlay_peer"):
                assert set(value.split("|")) <= set(STATES)


def test_every_label_in_a_sentence_is_one_of_the_alert():
    for rule in ALERTS.read_text().split("- alert: ")[1:]:
        known = TARGET_LABELS.union(
            *(FAMILIES[name].labels for name in FAMILIES if re.search(rf"\b{name}\b", rule))
        )
        assert set(re.findall(r"\$labels\.(\w+)", rule)) <= known, rule


@pytest.fixture(scope="module")
def promtool():
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed")

    def run(*arguments):
        done = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    return run


@pytest.mark.slow
def test_rules_are_what_promtool_takes(promtool):
    promtool("check", "rules", ALERTS)


def test_alerts_fire_for_what_lasts_and_not_for_what_strangers_send(promtool, tmp_path):
    story = tmp_path / "story.yml"
    story.write_text(STORY.format(alerts=ALERTS))

    promtool("test", "rules", story)
