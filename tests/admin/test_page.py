"""What the page makes of figures and bodies."""

import subprocess
import sys
from itertools import pairwise

import pytest

from faststream_outbox._values.facts import TableFacts
from faststream_outbox._values.figures import Count, QueueFigures
from faststream_outbox.admin.admin import OutboxAdmin
from faststream_outbox.admin.page.history import BACKLOG, DEAD, MOST_POINTS, MOST_QUEUES, OLDEST, SECONDS, History
from faststream_outbox.admin.page.plots import HEIGHT, WIDTH, plot
from faststream_outbox.admin.page.words import MOST_TEXT, of_body, of_queue


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def nobody() -> OutboxAdmin:
    raise AssertionError("nobody is asked")


def table(inserted: int, deleted: int) -> TableFacts:
    return TableFacts(
        table="outbox",
        estimated_rows=0,
        dead_rows=0,
        table_bytes=0,
        index_bytes=0,
        last_vacuum=None,
        last_analyze=None,
        options=(),
        has_row_security=False,
        triggers=(),
        rows_inserted=inserted,
        rows_deleted=deleted,
    )


def test_rates_are_of_the_time_between_looks() -> None:
    clock = Clock()
    history = History(nobody, clock=clock)
    for seconds, inserted, deleted in ((0, 100, 10), (20, 300, 110), (40, 360, 150), (60, 5, 3)):
        clock.now = 1000.0 + seconds
        history.note([], [table(inserted, deleted)])
    assert [(point.age, point.value) for point in history.rates("inserted")] == [(40, 10.0), (20, 3.0), (0, 0.0)]
    assert [point.value for point in history.rates("deleted")] == [5.0, 2.0, 0.0], "statistics began anew"


def test_figures_are_kept_for_an_hour() -> None:
    clock = Clock()
    history = History(nobody, clock=clock)
    orders = QueueFigures(queue="orders", ready=Count(3), due=Count(2), oldest_seconds=7.0, moved=Count(4))
    history.note([orders, QueueFigures(queue="mails", ready=Count(1), oldest_seconds=9.0)], [])
    clock.now += 0.5
    history.note([], [])
    clock.now += 10
    history.note([], [])
    assert [point.value for point in history.of_queue("orders", BACKLOG)] == [5, 0], "half a second is no time"
    assert [point.value for point in history.of_queue("orders", DEAD)] == [4, 0]
    assert [point.value for point in history.of_all(BACKLOG)] == [6, 0]
    assert [point.value for point in history.of_all(OLDEST)] == [9.0, 0.0], "ages are not added up"
    assert history.rates("inserted") == []
    clock.now += SECONDS - 5
    history.note([], [])
    assert [point.age for point in history.of_all(BACKLOG)] == [SECONDS - 5, 0]


def test_viewers_do_not_shorten_the_hour() -> None:
    clock = Clock()
    history = History(nobody, clock=clock)
    for _ in range(2 * 1800):
        history.note([], [])
        clock.now += 2.0
    ages = [point.age for point in history.of_all(BACKLOG)]
    assert SECONDS - 30 < ages[0] <= SECONDS + 2
    assert all(15 <= earlier - later < 20 for earlier, later in pairwise(ages[:-1]))
    assert len(history.of_queue("orders", BACKLOG)) <= MOST_POINTS
    assert history.of_queue("orders", BACKLOG)[-1].age == ages[-1], "the present is among them"


def test_a_queue_that_is_not_kept_is_not_shown_as_empty() -> None:
    history = History(nobody)
    many = [QueueFigures(queue=f"q{number:04}", ready=Count(2)) for number in range(MOST_QUEUES + 5)]
    standing = QueueFigures(queue="z", ready=Count(7), oldest_seconds=100.0)
    history.note([*many, standing], [])
    assert [point.value for point in history.of_queue("q0000", BACKLOG)] == [2]
    assert [point.value for point in history.of_queue("z", BACKLOG)] == [7], "it stands, so it comes first"
    assert history.of_queue("q0204", BACKLOG) == []
    assert [point.value for point in history.of_all(BACKLOG)] == [2 * len(many) + 7], "of all of them"
    assert [point.value for point in history.of_all(OLDEST)] == [100.0]


def test_a_plot_runs_to_the_present() -> None:
    clock = Clock()
    history = History(nobody, clock=clock)
    for count in (0, 10, 5):
        history.note([QueueFigures(queue="q", ready=Count(count))], [])
        clock.now += 30
    drawn = plot(history.of_queue("q", BACKLOG))
    marks = [tuple(map(float, mark.split(","))) for mark in drawn.line.split()]
    assert [round(x / WIDTH, 2) for x, _ in marks] == [0, 0.33, 0.67, 1], "30 s ago is the last look"
    assert marks[1][1] < marks[2][1] < marks[0][1] < HEIGHT
    assert (drawn.most, drawn.now, drawn.seconds) == (10, 5, 90)
    assert plot([]).line == ""


@pytest.mark.parametrize(
    ("payload", "text", "is_hex", "shown"),
    [
        (b'{"n": 12345678901234567890, "x": 1.10}', '{"n": 12345678901234567890, "x": 1.10}', False, 38),
        (b"a\tb\nc\x1b[31m", "a    b\nc\\x1b[31m", False, 10),
        (b"", "", False, 0),
        (b"\xff\x00A", "00000000  ff 00 41                                         ..A", True, 3),
        (b"a\x00b", "00000000  61 00 62                                         a.b", True, 3),
    ],
)
def test_a_body_is_shown_as_it_is(payload: bytes, text: str, is_hex: bool, shown: int) -> None:
    assert of_body(payload) == (text, is_hex, shown)


def test_a_text_is_not_cut_within_a_character() -> None:
    payload = b"x" + "é".encode() * MOST_TEXT
    body = of_body(payload[:MOST_TEXT])
    assert not body.is_hex
    assert body.shown == MOST_TEXT - 1
    assert body.text.endswith("é")


@pytest.mark.parametrize(
    ("figures", "word"),
    [
        ({"ready": Count(1), "oldest_seconds": 59.0}, "Flowing"),
        ({"ready": Count(1), "oldest_seconds": 61.0}, "Standing"),
        ({"leased": Count(1), "leases_run_out": 1}, "Standing"),
        ({"leased": Count(1), "ready": Count(1)}, "Working"),
        ({"retries": Count(1), "timers": Count(1)}, "Retrying"),
        ({"timers": Count(1)}, "Timers"),
        ({"moved": Count(1)}, "Empty"),
    ],
)
def test_a_queue_is_said_in_a_word(figures: dict[str, object], word: str) -> None:
    assert of_queue(QueueFigures(queue="q", **figures)).word == word  # type: ignore[arg-type]


WITHOUT = """
import importlib.util as util

find = util.find_spec
util.find_spec = lambda name, *rest: None if name in ("fastapi", "jinja2") else find(name, *rest)
import sys

sys.modules["fastapi"] = sys.modules["jinja2"] = None
import faststream_outbox.cli.app
from faststream_outbox.admin import make_admin

try:
    from faststream_outbox.admin import make_admin_router
except ImportError as error:
    print(error)
"""


def test_without_the_extra_everything_else_works() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("the page needs fastapi and jinja2, not installed here: install")
    assert "its extra page" in done.stdout
