"""Alarms and dashboard: every metric exists, every alarm has its page and fires in a test."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from coordinator.daemon.metrics import Metrics

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "deploy" / "prometheus"
RUNBOOK = ROOT / "docs" / "operating" / "runbook"
MONITORING = ROOT / "docs" / "operating" / "monitoring.md"

SUFFIXES = {
    "counter": ("_total",),
    "gauge": ("",),
    "info": ("_info",),
    "histogram": ("_bucket", "_sum", "_count"),
}
OF_PROMETHEUS = {"up"}
METRIC = re.compile(r"\b(?:coordinator|process|python)_[a-z_]+|\bup\b(?=\{)")


def known_metrics() -> set[str]:
    families = Metrics().registry.collect()
    return OF_PROMETHEUS | {
        family.name + suffix for family in families for suffix in SUFFIXES[family.type]
    }


def rules() -> list[dict[str, Any]]:
    tree = yaml.safe_load((PROMETHEUS / "alerts.yaml").read_text())
    return [rule for group in tree["groups"] for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    tree: dict[str, Any] = json.loads((ROOT / "deploy/grafana/coordinator.json").read_text())
    return tree


def queries() -> Iterator[str]:
    tree = dashboard()
    for panel in tree["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"]
    for each in tree["annotations"]["list"]:
        yield each["expr"]
    for variable in tree["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["query"]["query"]


def metrics_of(expression: str) -> set[str]:
    return set(METRIC.findall(expression))


def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not installed")
    return found


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_an_alarm_asks_for_metrics_that_exist_and_leads_to_its_page(rule: dict[str, Any]) -> None:
    asked = metrics_of(rule["expr"])
    assert asked
    assert asked <= known_metrics()
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert rule["annotations"]["summary"]
    page = ROOT / rule["annotations"]["runbook_url"]
    assert page == RUNBOOK / f"{rule['alert']}.md"
    text = page.read_text()
    assert text.startswith(f"# {rule['alert']}\n")
    assert rule["labels"]["severity"] in text.partition("\n## ")[0]
    for heading in ("## What it means", "## First look", "## What to do", "## When to wake whom"):
        assert f"\n{heading}\n" in text, heading
    assert f"(runbook/{rule['alert']}.md)" in MONITORING.read_text()


def test_no_page_is_left_of_an_alarm_that_is_gone() -> None:
    assert {page.stem for page in RUNBOOK.glob("*.md")} == {rule["alert"] for rule in rules()}


def test_every_alarm_is_tried_both_firing_and_quiet() -> None:
    tests = yaml.safe_load((PROMETHEUS / "alerts.test.yaml").read_text())["tests"]
    tried = [each for test in tests for each in test["alert_rule_test"]]
    names = {rule["alert"] for rule in rules()}
    assert {each["alertname"] for each in tried if each["exp_alerts"]} == names
    assert {each["alertname"] for each in tried if not each["exp_alerts"]} == names


def test_every_alarm_fires_when_it_should() -> None:
    done = subprocess.run(
        [promtool(), "test", "rules", "alerts.test.yaml"],
        cwd=PROMETHEUS,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_metric_that_does_not_exist_would_be_noticed() -> None:
    assert not metrics_of("sum(rate(coordinator_units_fnished_total[5m]))") <= known_metrics()
    assert not metrics_of("coordinator_units_parked_total") <= known_metrics()
    assert metrics_of('sum(up{job="coordinator"}) == 0') == {"up"}


def test_the_dashboard_asks_for_metrics_that_exist() -> None:
    asked = set().union(*map(metrics_of, queries()))
    assert asked <= known_metrics()
    shown = {name for name in known_metrics() if name.startswith("coordinator_")}
    assert len(asked & shown) > 25


def test_the_dashboard_is_whole() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24, panel["title"]
        taken |= cells
        if panel["type"] != "row":
            assert panel["targets"], panel["title"]
            assert panel["description"], panel["title"]
            assert panel["datasource"]["uid"] == "${datasource}"
    titles = [panel["title"] for panel in panels if panel["type"] != "row"]
    assert len(titles) == len(set(titles))


def test_the_queries_are_promql(tmp_path: Path) -> None:
    """As rules, so that their parser reads them; Grafana's variables get values first."""
    texts = [each for each in queries() if not each.startswith("label_values")]
    assert len(texts) > 30
    recorded = [
        {"record": f"panel:{number}", "expr": re.sub(r"\$__rate_interval", "1m", text)}
        for number, text in enumerate(texts)
    ]
    file = tmp_path / "panels.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": recorded}]}))
    done = subprocess.run(
        [promtool(), "check", "rules", str(file)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
