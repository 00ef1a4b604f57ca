"""The medians as bars, one SVG file for each workload: nothing to install, and readable in a browser or on a page."""

from collections.abc import Iterable
from html import escape
from pathlib import Path

from benchmarks.contest import Result
from benchmarks.report import number

LABEL, BAR, VALUE, ROW, TOP = 230, 420, 190, 28, 56
COLOURS = {"ours": "#2f6fb0", "limit": "#9aa5b1"}
OTHERS = "#d18b47"


def draw(results: Iterable[Result], folder: Path) -> list[Path]:
    """Write a plot of each workload's first figure; a line shows from the least to the greatest of the rounds."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for result in results:
        if any(result.rounds.values()):
            file = folder / f"{result.workload.name}.svg"
            file.write_text(_plot(result), encoding="utf-8")
            written.append(file)
    return written


def _plot(result: Result) -> str:
    runs = {name: rounds for name, rounds in result.rounds.items() if rounds}
    figure = next(iter(next(iter(runs.values()))[0]))
    medians = result.medians
    greatest = max(run[figure] for rounds in runs.values() for run in rounds) or 1.0
    width, height = LABEL + BAR + VALUE, TOP + ROW * len(runs) + 12
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif">',
        '<rect width="100%" height="100%" fill="white"/>',
        _text(12, 24, result.workload.title, size=16),
        _text(12, 44, figure, size=12),
    ]
    for row, (name, rounds) in enumerate(runs.items()):
        top, found = TOP + ROW * row, sorted(run[figure] for run in rounds)
        least, most, median = (LABEL + BAR * value / greatest for value in (found[0], found[-1], medians[name][figure]))
        colour = COLOURS.get(name, OTHERS)
        lines += [
            _text(12, top + 16, name, size=13),
            f'<rect x="{LABEL}" y="{top}" width="{median - LABEL:.1f}" height="20" fill="{colour}"/>',
            f'<line x1="{least:.1f}" y1="{top + 10}" x2="{most:.1f}" y2="{top + 10}" stroke="black"/>',
            _text(int(max(most, median)) + 8, top + 16, number(medians[name][figure]), size=13),
        ]
    return "\n".join([*lines, "</svg>", ""])


def _text(x: int, y: int, words: str, *, size: int) -> str:
    return f'<text x="{x}" y="{y}" font-size="{size}">{escape(words)}</text>'
