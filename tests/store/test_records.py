"""How records become rows."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from faststream_outbox._store.postgres.records import place_of, to_rows
from faststream_outbox._values.row import OutboxRow

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def row(number: int, **headers: str) -> OutboxRow:
    return OutboxRow(number, "orders", f"k{number}", f"i{number}", b"body", headers, 1, 2, NOW, NOW, None, NOW, "timer")


def record(row: OutboxRow, *more: Any) -> tuple[Any, ...]:
    return (*row._replace(headers=json.dumps(row.headers)), *more)


@pytest.mark.parametrize("more", [(), (3, 500)])
@pytest.mark.parametrize(
    "rows",
    [[], [row(1)], [row(1, a="],[", b='"}'), row(2), row(3, ü="\\", n="\n")]],
    ids=len,
)
def test_each_row_has_its_own_columns(rows: list[OutboxRow], more: tuple[int, ...]) -> None:
    assert to_rows([record(row, *more) for row in rows]) == rows


def test_the_place_of_a_record() -> None:
    assert place_of(record(row(1), 3, 500)) == ("orders", 3)
