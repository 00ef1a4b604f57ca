"""`docker/monitoring` asks for metrics that there are, in words that Prometheus understands."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from faststream_outbox.metrics.instruments import ALL, Kind
from integration.servers.missing import missing

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "docker" / "monitoring"
DASHBOARD = MONITORING / "grafana" / "dashboards" / "outbox.json"
NAME = re.compile(r"\boutbox_\w+")


def names_on_a_page() -> Iterator[str]:
    for each in ALL:
        match each.kind:
            case Kind.COUNTER:
                yield f"{each.name}_total"
            case Kind.HISTOGRAM:
                yield from (f"{each.name}_{part}" for part in ("bucket", "sum", "count"))
            case Kind.GAUGE:
                yield each.name


def expressions() -> list[str]:
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    return [target["expr"] for panel in panels for target in panel["targets"]]


@pytest.fixture(scope="module")
def promtool() -> str:
    path = shutil.which("promtool")
    return path or missing("promtool is not installed (Debian's package prometheus)")


def run(promtool: str, *arguments: str | Path) -> None:
    done = subprocess.run([promtool, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("page", [DASHBOARD, MONITORING / "alerts.yml"], ids=lambda page: page.name)
def test_each_metric_that_is_asked_for_is_there(page: Path) -> None:
    asked = {*NAME.findall(page.read_text(encoding="utf-8"))}
    assert len(asked) > 10
    assert asked - {*names_on_a_page()} == set()


def test_the_rules_and_what_they_say(promtool: str) -> None:
    run(promtool, "check", "rules", MONITORING / "alerts.yml")
    run(promtool, "check", "config", MONITORING / "prometheus.yml")
    run(promtool, "test", "rules", MONITORING / "alerts.test.yml")


def test_each_alert_is_tried_or_plain() -> None:
    """Those that no test of `alerts.test.yml` tries compare a single figure with a bound."""
    rules = yaml.safe_load((MONITORING / "alerts.yml").read_text(encoding="utf-8"))["groups"][0]["rules"]
    tried = re.findall(r"alertname: (\w+)", (MONITORING / "alerts.test.yml").read_text(encoding="utf-8"))
    plain = re.compile(r"^(max by \([\w, ]+\) \()?outbox_\w+\)? (>|==) [\w.]+$")
    assert [rule["alert"] for rule in rules if rule["alert"] not in tried and not plain.match(rule["expr"])] == []
    assert {*tried} <= {rule["alert"] for rule in rules}


def test_prometheus_understands_the_dashboard(promtool: str, tmp_path: Path) -> None:
    asked = [each.replace("$__rate_interval", "1m").replace("$outbox", ".*") for each in expressions()]
    rules = [{"record": f"panel:{number}", "expr": expression} for number, expression in enumerate(asked)]
    path = tmp_path / "dashboard.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}), encoding="utf-8")
    run(promtool, "check", "rules", path)


def test_panels_do_not_overlap() -> None:
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    taken = [
        (x, y)
        for grid in (panel["gridPos"] for panel in panels)
        for x in range(grid["x"], grid["x"] + grid["w"])
        for y in range(grid["y"], grid["y"] + grid["h"])
    ]
    assert len({*taken}) == len(taken)
    assert max(x for x, _ in taken) < 24
