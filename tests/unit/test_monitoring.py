"""Alert rules and dashboards refer to existing metrics and runbook sections."""

import json
import re
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
MONITORING = PROJECT / "monitoring"
RULES = (MONITORING / "alerts.yaml").read_text()
DASHBOARDS = sorted((MONITORING / "dashboards").glob("*.json"))
RUNBOOK = PROJECT / "docs/operations.md"
# tests/services/test_metrics.py checks Temporal's metrics against a running worker.
OURS = re.compile(r"\blogflume_(?!operator\b)\w+")  # that is a role of Postgres


def documented() -> set[str]:
    """Every series in docs/metrics.md, which `bin/check` compares with the code."""
    page = (PROJECT / "docs/metrics.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \|", page, re.MULTILINE)
    endings = {"histogram": ("_bucket", "_sum", "_count")}
    return {name + end for name, kind in rows for end in endings.get(kind, ("",))}


def expressions(path: Path) -> list[str]:
    if path.suffix == ".json":
        panels = json.loads(path.read_text())["panels"]
        return [target["expr"] for panel in panels for target in panel.get("targets", [])]
    return [path.read_text()]


@pytest.mark.parametrize(
    "path", [MONITORING / "alerts.yaml", *DASHBOARDS], ids=lambda path: path.stem
)
def test_every_named_metric_exists(path):
    named = {name for text in expressions(path) for name in OURS.findall(text)}
    assert named
    assert named - documented() == set()


def test_dashboards_and_panels_have_unique_ids():
    dashboards = [json.loads(path.read_text()) for path in DASHBOARDS]
    assert [dashboard["uid"] for dashboard in dashboards] == [
        f"logflume-{path.stem}" for path in DASHBOARDS
    ]
    for dashboard in dashboards:
        ids = [panel["id"] for panel in dashboard["panels"]]
        assert len(set(ids)) == len(ids)


def test_every_alert_names_its_runbook_section():
    alerts = re.findall(r"- alert: (\w+)", RULES)
    urls = re.findall(r'runbook_url: "(.+)"', RULES)
    kebab = [re.sub(r"(?<!^)([A-Z])", r"-\1", alert).lower() for alert in alerts]
    assert urls == [f"{{{{ $externalLabels.runbook_logflume }}}}#{name}" for name in kebab]
    assert RULES.count("summary: ") == len(alerts) > 0


def test_the_runbook_has_these_sections_and_names_existing_metrics():
    page = RUNBOOK.read_text()
    headings = {line.lstrip("# ").lower().replace(" ", "-") for line in page.splitlines()}
    names = re.findall(r'runbook_url: ".+#(.+)"', RULES)
    assert [name for name in names if name not in headings] == []
    assert "runbook_logflume" in (MONITORING / "prometheus.yaml").read_text()
    assert set(OURS.findall(page)) - documented() == set()


def test_the_runbook_lists_existing_log_events():
    rows = RUNBOOK.read_text().partition("## Log events")[2].splitlines()
    cells = [row.split("|")[1] for row in rows if row.startswith("| `")]
    events = re.findall(r"`(\w+)`", " ".join(cells))
    folders = ("activities", "db", "drain", "logflume", "logflume_cli", "web", "workflows")
    sources = (path for folder in folders for path in (PROJECT / folder).rglob("*.py"))
    code = "".join(path.read_text() for path in sources)
    assert [event for event in events if f'"{event}"' not in code] == []
    assert events


def test_numbers_in_alerts_are_whole():
    values = set(re.findall(r"\{\{[^}]*\$value[^}]*\}\}", RULES))
    assert values == {'{{ printf "%.0f" $value }}', "{{ $value | humanizeDuration }}"}


def test_every_alert_is_fired_by_a_rule_test():
    fired = re.findall(r"alertname=\"(\w+)\"", (MONITORING / "alerts.test.yaml").read_text())
    assert set(fired) == set(re.findall(r"- alert: (\w+)", RULES))
