"""Which errors are PostgreSQL's last word on an outcome."""

from typing import Any

import pytest
from sqlalchemy.exc import DBAPIError, NotSupportedError

from faststream_outbox._store.postgres.refusals import SPLITS_OF_ROWS, SPLITS_OF_TABLE, refusal_in
from faststream_outbox._values.outcome import in_ascii


class ServerError(Exception):
    """As the driver raises it."""

    severity_en = "ERROR"


class Adapted(Exception):
    """As SQLAlchemy's adapter for the driver raises it."""

    def __init__(self, sqlstate: str | None) -> None:
        super().__init__("adapted")
        self.sqlstate = sqlstate


def error(
    sqlstate: str | None, *, cause: BaseException | None = None, kind: type[DBAPIError] = DBAPIError, **options: Any
) -> DBAPIError:
    adapted = Adapted(sqlstate)
    adapted.__cause__ = cause or ServerError("in its own words")
    return kind("DELETE ...", {"ids": [1]}, adapted, **options)


@pytest.mark.parametrize("code", ["P0001", "23505", "23503", "22P05", "22003", "54000", "XX001", "MINE1"])
def test_what_a_row_or_a_trigger_is_to_blame_for_is_a_refusal(code: str) -> None:
    refusal = refusal_in(error(code))
    assert refusal is not None
    assert str(refusal.error) == "in its own words"
    assert refusal.splits == SPLITS_OF_ROWS


@pytest.mark.parametrize("code", ["42P01", "42501", "42703", "3F000", "55000", "57014"])
def test_what_is_mostly_the_tables_fault_is_divided_less(code: str) -> None:
    refusal = refusal_in(error(code))
    assert refusal is not None
    assert refusal.splits == SPLITS_OF_TABLE


@pytest.mark.parametrize(
    "code",
    [
        *("08006", "08P01", "25006", "25P02", "25P04", "26000", "28P01", "40001", "40P01", "42P05", "53100", "53300"),
        *("55006", "55P03", "57P01", "58030"),
    ],
)
def test_what_passes_is_no_refusal(code: str) -> None:
    assert refusal_in(error(code)) is None


def test_a_lost_connection_is_no_refusal_whatever_it_says() -> None:
    assert refusal_in(error("P0001", connection_invalidated=True)) is None
    fatal = ServerError()
    fatal.severity_en = "FATAL"
    assert refusal_in(error("XX000", cause=fatal)) is None
    assert refusal_in(error(None, cause=ConnectionError("connection is closed"))) is None


def test_a_value_that_the_driver_cannot_write_is_a_refusal() -> None:
    assert refusal_in(error(None, cause=ValueError("value out of int32 range"))) is not None


def test_a_statement_that_a_changed_table_has_outdated_is_prepared_again() -> None:
    assert refusal_in(error("0A000", kind=NotSupportedError)) is None
    assert refusal_in(error("0A000")) is not None


@pytest.mark.parametrize(("code", "is_untranslatable"), [("22P05", True), ("22021", True), ("22003", False)])
def test_what_an_encoding_lacks_is_known(code: str, is_untranslatable: bool) -> None:
    refusal = refusal_in(error(code))
    assert refusal is not None
    assert refusal.is_untranslatable is is_untranslatable


def test_a_text_in_ascii_shows_what_it_was() -> None:
    assert in_ascii(None) is None
    assert in_ascii("plain\n") == "plain\n"
    assert in_ascii("é ж 😀") == "\\xe9 \\u0436 \\U0001f600"
