"""Commands that judge: ``check`` and ``doctor``."""

from typing import Annotated

import typer
from rich.text import Text

from faststream_outbox._values.finding import Finding, Grade
from faststream_outbox.admin.judging import advice_for
from faststream_outbox.cli.exits import Exit
from faststream_outbox.cli.output import findings_table, show
from faststream_outbox.cli.site import Site

Listen = Annotated[
    float,
    typer.Option(min=0.0, help="Seconds to listen for what processes consume. They say so once a minute, so take 65."),
]
Strict = Annotated[bool, typer.Option("--strict", help="Warnings count as problems.")]


async def check(site: Site) -> Exit:
    """Compare the tables with what this release declares.

    For CI, and after a migration.
    Exits with 0 where they agree, and with 1 where they differ.
    """
    async with site.open() as admin:
        differences = await admin.differences()
    lines = [
        f"{table}: {problem}\n-> {advice_for(problem)}" for table, found in differences.items() for problem in found
    ]
    answer = {"agrees": not differences, "differences": differences}
    show(answer, Text("\n".join(lines) or "the tables are as they are declared"), as_json=site.as_json)
    return Exit.FOUND if differences else Exit.OK


async def doctor(site: Site, *, listen: Listen = 0.0, strict: Strict = False) -> Exit:
    """Look for what keeps messages from flowing, or may soon.

    It says what to do, too. Looked at are tables, indexes, plans, queues, sessions that block others, snapshots,
    connections, LISTEN and poolers.
    Exits with 1 where it finds a problem.
    """
    async with site.open() as admin:
        findings = await admin.examine(listen_seconds=listen)
    show(findings, findings_table(findings), as_json=site.as_json)
    return Exit.FOUND if any(_is_bad(finding, strict=strict) for finding in findings) else Exit.OK


def _is_bad(finding: Finding, *, strict: bool) -> bool:
    return finding.grade is Grade.PROBLEM or (strict and finding.grade in {Grade.WARNING, Grade.UNKNOWN})
