"""A scenario's result: a line for machines while it runs, and a table of such lines.

    python -m integration.scenarios.results results.jsonl

`OUTBOX_RESULTS` names a file to which every result is appended.
"""

import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from integration.ledger.ledger import Findings

ENVIRONMENT = "OUTBOX_RESULTS"
HEAD = ("scenario", "load", "faults", "lost", "repeated", "out of order", "time to recover", "besides")


@dataclass(frozen=True, kw_only=True)
class Result:
    """One line of the table.

    Attributes:
        recovered: seconds from the end of the last fault until all that had been committed by then was delivered;
            None where nothing had to recover.
        besides: further figures, in words.
    """

    scenario: str
    load: str
    faults: str
    lost: int
    repeated: int
    out_of_order: int
    recovered: float | None = None
    besides: str = ""

    def cells(self) -> tuple[str, ...]:
        recovered = "" if self.recovered is None else f"{self.recovered:.1f} s"
        counts = (str(self.lost), str(self.repeated), str(self.out_of_order))
        return (self.scenario, self.load, self.faults, *counts, recovered, self.besides)


def record(
    findings: Findings, scenario: str, *, load: str, faults: str, recovered: float | None = None, besides: str = ""
) -> None:
    """Print the result, and append it to the file that the environment names."""
    result = Result(
        scenario=scenario,
        load=load,
        faults=faults,
        lost=len(findings.lost),
        repeated=len(findings.repeated),
        out_of_order=len(findings.out_of_order),
        recovered=recovered,
        besides=besides,
    )
    line = json.dumps(asdict(result), ensure_ascii=False)
    print("RESULT", line)
    if file := os.environ.get(ENVIRONMENT):
        with Path(file).open("a") as results:
            results.write(line + "\n")


def table(lines: list[str]) -> str:
    """The Markdown table of results, one JSON object a line."""
    results = [Result(**json.loads(line)) for line in lines]
    rows = [HEAD, ("---",) * len(HEAD), *(result.cells() for result in results)]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


if __name__ == "__main__":
    print(table(Path(sys.argv[1]).read_text().splitlines()))
