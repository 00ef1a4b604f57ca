"""How records become rows."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from faststream_outbox._store.postgres.records import shard_of, to_rows
from faststream_outbox._values.row import OutboxRow
from faststream_outbox.schema import MAX_STORED_HEADERS_BYTES

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


def test_the_shard_of_a_record() -> None:
    assert shard_of(record(row(1), 3, 500)) == ("orders", 3)


# What SQL can write into a column of jsonb, and what a dead letter's text says of it.
UNREADABLE = {
    "[]": "they are an array, not an object of texts",
    '"x"': "they are a text, not an object of texts",
    "null": "they are null, not an object of texts",
    "3": "they are a number, not an object of texts",
    '{"retries": 3}': "the value of 'retries' is a number, not a text",
    '{"a": "b", "c": 1.5}': "the value of 'c' is a number, not a text",
    '{"a": true}': "the value of 'a' is a boolean, not a text",
    '{"a": null}': "the value of 'a' is null, not a text",
    '{"a": ["x"]}': "the value of 'a' is an array, not a text",
    '{"a": {}}': "the value of 'a' is an object, not a text",
    '{"a\\nb": 1}': r"the value of 'a\nb' is a number",
    '{"' + "n" * 10**6 + '": 1}': "the value of 'nnn",
    '{"a": ' + "1" * 5000 + "}": "ValueError: Exceeds the limit",
    "[" * 10**5 + "]" * 10**5: "RecursionError: ",
    '{"a": ' * 10**5 + "1" + "}" * 10**5: "RecursionError: ",
}


@pytest.mark.parametrize("written", UNREADABLE, ids=lambda written: written[:20])
def test_headers_that_cannot_be_read_are_the_trouble_of_their_own_row(written: str) -> None:
    plain, bad = row(1, a="b"), row(2)
    found = to_rows([record(plain), (*bad._replace(headers=written),), record(plain)])  # type: ignore[arg-type]
    assert found == [plain, bad._replace(headers={}), plain]
    assert [each.problem is None for each in found] == [True, False, True]
    problem = str(found[1].problem)
    assert problem.startswith(f"the headers cannot be read: {UNREADABLE[written]}")
    assert len(problem) < 300


def test_headers_that_are_too_large_come_as_null() -> None:
    found = to_rows([(*row(1)._replace(headers=None),), record(row(2, a="b"))])  # type: ignore[arg-type]
    assert found == [row(1), row(2, a="b")]
    assert found[0].problem == f"the headers cannot be read: they take more than {MAX_STORED_HEADERS_BYTES} bytes"
    assert found[1].problem is None
