"""The dashboard and the alert rules speak of metrics that exist."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

import serving
from serving.drift import DriftMeter
from serving.graphs import GraphRun
from serving.observability import Metrics
from serving.stream_metrics import NOTHING
from tests.serving.conftest import step_result, toy_baseline

DASHBOARDS = Path(serving.__file__).parent / "dashboards"
RULES, RULE_TESTS = DASHBOARDS / "alerts.yml", DASHBOARDS / "alerts_test.yml"
OF_PROMETHEUS = {"instance", "job"}  # labels that scraping adds


def busy_metrics() -> Metrics:
    """Each metric with a sample."""
    metrics = Metrics()
    metrics.watch_life("toy@1", lambda: True)
    metrics.watch_streams("toy@1", lambda: 1)
    metrics.watch_drift("toy@1", DriftMeter(toy_baseline()))
    metrics.watch_runs("toy@1")(GraphRun("step", num_frames=1, num_failed=0, seconds=0.1))
    metrics.times("toy@1", {"total": 1.0})
    metrics.quality("toy@1", step_result(), drift=1.0)
    metrics.key_frame_age("toy@1", 1)
    return metrics


@pytest.fixture(scope="module")
def exposed() -> tuple[str, dict[str, set[str]]]:
    """What /metrics says of a stream on its way, and the labels of each sample."""
    metrics = busy_metrics()
    with metrics.streams.watch("toy@1", "stream-1", lambda: NOTHING):
        samples = {
            sample.name: set(sample.labels) for family in metrics.registry.collect() for sample in family.samples
        }
        return metrics.text().decode(), samples


def panels() -> list[dict[str, Any]]:  # Any: JSON
    dashboard = json.loads((DASHBOARDS / "flowseg.json").read_text())
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def rules() -> list[dict[str, Any]]:  # Any: YAML
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    return list(group["rules"])


def unknown(expression: str, samples: dict[str, set[str]]) -> list[str]:
    """Metrics that do not exist, and labels that theirs do not have."""
    selectors = re.findall(r"\b((?:flowseg|process)_\w+)(?:{([^}]*)})?", expression)
    found = [name for name, _ in selectors if name not in samples]
    for name, selector in selectors:
        labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector)) - OF_PROMETHEUS
        found += [f"{name}{{{label}}}" for label in labels - samples.get(name, set())]
    known = set().union(*samples.values()) | OF_PROMETHEUS
    for group in re.findall(r"\bby \(([^)]*)\)", expression):
        found += [f"by {label}" for label in re.split(r"\W+", group) if label not in known]
    return found


def test_a_name_or_label_that_does_not_exist_would_be_found(exposed: tuple[str, dict[str, set[str]]]) -> None:
    expression = 'sum by (colour) (rate(flowseg_frames_total{outcome="error",shape="round"}[5m])) / flowseg_nothing'
    assert unknown(expression, exposed[1]) == ["flowseg_nothing", "flowseg_frames_total{shape}", "by colour"]


def test_every_metric_of_the_dashboard_exists(exposed: tuple[str, dict[str, set[str]]]) -> None:
    expressions = [target["expr"] for panel in panels() for target in panel["targets"]]
    assert len(expressions) > 20
    assert [each for each in expressions if unknown(each, exposed[1])] == []
    assert len({panel["id"] for panel in panels()}) == len(panels())


def test_every_metric_of_flowseg_is_on_the_dashboard(exposed: tuple[str, dict[str, set[str]]]) -> None:
    text = (DASHBOARDS / "flowseg.json").read_text()
    families = {re.sub(r"_(total|bucket|sum|count|created)$", "", name) for name in exposed[1] if "flowseg" in name}
    assert [name for name in sorted(families) if name not in text] == []


def test_every_metric_of_the_alert_rules_exists_and_every_alert_says_what_is_wrong(
    exposed: tuple[str, dict[str, set[str]]],
) -> None:
    """By the names alone: whether Prometheus takes the expressions is for promtool to say, in the next test."""
    assert [rule["alert"] for rule in rules() if unknown(rule["expr"], exposed[1])] == []
    for rule in rules():
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        assert rule["annotations"]["summary"]


def test_promtool_takes_the_rules_and_the_metrics(exposed: tuple[str, dict[str, set[str]]]) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian: prometheus): of the rules only the names were checked")
    for command in (["check", "rules", RULES], ["test", "rules", RULE_TESTS]):
        done = subprocess.run([promtool, *map(str, command)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    linted = subprocess.run(
        [promtool, "check", "metrics"], input=exposed[0], capture_output=True, text=True, check=False
    )
    assert (linted.returncode, linted.stdout + linted.stderr) == (0, "")
