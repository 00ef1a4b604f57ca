"""From what a run has seen to the table of the page."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from . import versions
from .versions import BEGIN, END, TestedRun

RECORDED = Path(__file__).parents[2] / "docs" / "inside" / "versions.jsonl"


def test_runs_of_one_name_share_a_column_and_what_nobody_has_seen_has_no_row() -> None:
    runs = [
        TestedRun(run="every test", day="2026-12-01", passed=5000, versions={"Redis": ["8.0.6"], "Python": ["3.11.7"]}),
        TestedRun(run="unit tests", day="2026-11-30", passed=7, versions={"Python": ["3.13.9"]}),
        TestedRun(run="unit tests", day="2026-12-01", passed=8, versions={"Python": ["3.14.1"]}),
    ]
    assert versions.table(runs).splitlines() == [
        "|  | every test | unit tests |",
        "| --- | --- | --- |",
        "| Redis | 8.0.6 |  |",
        "| Python | 3.11.7 | 3.13.9, 3.14.1 |",
        "| tests passed | 5,000 | 7 + 8 |",
        "| day | 2026-12-01 | 2026-11-30, 2026-12-01 |",
    ]


def test_a_run_is_written_down_behind_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "versions.jsonl"
    earlier = TestedRun(run="earlier", day="2026-12-01", passed=1, versions={})
    file.write_text(json.dumps(asdict(earlier)) + "\n")
    monkeypatch.setenv(versions.FILE, str(file))
    monkeypatch.setenv(versions.RUN, "now")
    monkeypatch.setattr(versions, "_seen", {"NATS": {"2.15.1"}})
    run = versions.this_run(3)
    assert (run.run, run.passed, run.versions["NATS"]) == ("now", 3, ["2.15.1"])
    assert {"Python", "FastStream", "SQLAlchemy"} <= set(run.versions)
    assert versions.write_down(run) == [earlier, run]


def test_a_name_that_is_no_row_of_the_table_is_an_error() -> None:
    with pytest.raises(AssertionError, match="Reddis"):
        versions.note("Reddis", "8")


def test_the_page_has_the_table_of_the_runs_that_are_written_down() -> None:
    runs = versions.read(RECORDED.read_text(encoding="utf-8").splitlines())
    page = versions.PAGE.read_text(encoding="utf-8")
    assert page == versions.page_with(page, versions.table(runs))
    assert page.count(BEGIN) == page.count(END) == 1
    newest = {name for run in runs if run.run == "today's servers" for name in run.versions}
    assert newest >= {*versions.ROWS} - {"Valkey"}
