"""Small plots, as the points of lines in SVG."""

from collections.abc import Sequence
from dataclasses import dataclass

from faststream_outbox.admin.page.history import SECONDS, Point

WIDTH, HEIGHT = 160.0, 36.0
SHORTEST_SECONDS = 60.0
"""A plot of less than a minute would show noise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """A line and the area below it, with what they say in words."""

    line: str
    """For ``points`` of a polyline; empty where nothing was seen yet."""
    area: str
    """For ``points`` of a polygon."""
    most: float
    now: float
    seconds: float
    """How far back it goes."""


def plot(points: Sequence[Point]) -> Plot:
    """Return a plot of points, the last of which is the present; the time runs to the right."""
    if not points:
        return Plot(line="", area="", most=0.0, now=0.0, seconds=0.0)
    most = max(point.value for point in points)
    seconds = min(SECONDS, max(SHORTEST_SECONDS, points[0].age))
    marks = [(WIDTH * (1 - point.age / seconds), _height(point.value, most)) for point in points]
    # The last figure is the present one, though it is a moment old.
    marks.append((WIDTH, marks[-1][1]))
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in marks)
    area = f"{marks[0][0]:.1f},{HEIGHT:.1f} {line} {WIDTH:.1f},{HEIGHT:.1f}"
    return Plot(line=line, area=area, most=most, now=points[-1].value, seconds=seconds)


def _height(value: float, most: float) -> float:
    # A line of 1.5 has half of it above its middle.
    return HEIGHT - 1.0 - (HEIGHT - 3.0) * (value / most if most else 0.0)
