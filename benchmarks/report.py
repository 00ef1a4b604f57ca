"""The results as text."""

from collections.abc import Iterable, Sequence

from benchmarks.contest import Goal, Result


def table(machine: dict[str, str], results: Iterable[Result]) -> str:
    """Write medians and goals as Markdown."""
    lines = [f"{name}: {value}" for name, value in machine.items()]
    for result in results:
        lines += ["", f"### {result.workload.title}", "", *_medians(result)]
        if result.workload.goals:
            lines += ["", *_goals(result)]
        lines += ["", *(f"PROBLEM: {problem}" for problem in result.problems)]
    return "\n".join(lines)


def _medians(result: Result) -> list[str]:
    medians = result.medians
    names = list(dict.fromkeys(name for figures in medians.values() for name in figures))
    rows = []
    for contestant, figures in medians.items():
        runs = result.rounds[contestant]
        cells = [contestant]
        for name in names:
            spread = [run[name] for run in runs if name in run]
            shown = f"{number(figures[name])}" if name in figures else ""
            cells.append(f"{shown} ({number(min(spread))} to {number(max(spread))})" if len(spread) > 1 else shown)
        rows.append(cells)
    return markdown(["median of the rounds", *names], rows)


def _goals(result: Result) -> list[str]:
    medians = result.medians
    rows = []
    for goal in result.workload.goals:
        value = goal.value(medians)
        shown = "not measured" if value is None else f"{value:.2f}"
        verdict = "" if value is None else "yes" if goal.is_met(value) else "NO"
        rows.append([goal.what, shown, _bound(goal), verdict])
    return markdown(["goal", "measured", "wanted", "met"], rows)


def _bound(goal: Goal) -> str:
    return f"at least {goal.at_least:g}" if goal.at_least is not None else f"at most {goal.at_most:g}"


def number(value: float) -> str:
    """Write a figure with three digits that matter."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Write a table in Markdown."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        return f"| {' | '.join(padded)} |"

    return [line(head), f"|{'|'.join('-' * (width + 2) for width in widths)}|", *(line(row) for row in rows)]
