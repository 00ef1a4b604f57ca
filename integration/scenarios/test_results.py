"""From a scenario's result to its line of the table."""

from pathlib import Path

import pytest

from integration.ledger.ledger import Findings

from . import results


def test_results_become_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "results.jsonl"
    monkeypatch.setenv(results.ENVIRONMENT, str(file))
    findings = Findings(lost=["a"], repeated=["b", "b"], out_of_order=["c"])
    results.record(findings, "Soak", load="500 rows/s", faults="none", recovered=1.26)
    results.record(Findings(), "Fuzz", load="10,000", faults="none", besides="7 refused")
    table = results.table(file.read_text().splitlines())
    assert table.splitlines()[2:] == [
        "| Soak | 500 rows/s | none | 1 | 2 | 1 | 1.3 s |  |",
        "| Fuzz | 10,000 | none | 0 | 0 | 0 |  | 7 refused |",
    ]
