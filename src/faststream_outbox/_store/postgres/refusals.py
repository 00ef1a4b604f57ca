"""Which errors of PostgreSQL are its last word on an outcome, and which pass.

See "PostgreSQL Error Codes" in its manual.
"""

from typing import NamedTuple

from sqlalchemy.exc import DBAPIError, NotSupportedError

from faststream_outbox._store.postgres.statement_runner import sqlstate

_PASSING = ("08", "25", "26", "28", "40", "53", "57", "58", "42P05", "55006", "55P03")
"""Beginnings of SQLSTATEs: connection; state of a transaction, which is read-only on a standby; a statement that a
pooler does not know, or knows already (42P05); log-in; rollbacks; resources; operator; system; locks."""

_OF_TABLE = ("3F", "42", "55")
"""No such schema; no such table or column, no permission; a table that is not in the state for it."""

_UNTRANSLATABLE = ("22021", "22P05")
"""character_not_in_repertoire, untranslatable_character: the encoding of the database lacks a character."""

_QUERY_CANCELED = "57014"

_FATAL = ("FATAL", "PANIC")
"""Severities after which PostgreSQL closes the connection."""

SPLITS_OF_ROWS = 32
"""After so many refusals in a row, what is left is not divided any more: twice what finds one row of many thousands."""

SPLITS_OF_TABLE = 3
"""The same where an error mostly is the table's, and so of all rows. Mostly: a trigger may miss a table for one row."""


class Refusal(NamedTuple):
    """An outcome, or one of many in a statement, was refused for good."""

    error: BaseException
    """In the words of the driver, without the statement and its parameters."""
    splits: int
    """How many refusals in a row are enough."""
    is_untranslatable: bool


UNDEFINED_COLUMN = "42703"
"""SQLSTATE undefined_column."""


def refusal_in(error: DBAPIError) -> Refusal | None:
    """Return the refusal that an error is; None if the same statement may work at another time."""
    orig = error.orig
    cause = (orig and orig.__cause__) or orig or error
    state = sqlstate(error)
    if error.connection_invalidated or getattr(cause, "severity_en", None) in _FATAL:
        return None
    if state is None:
        # The driver itself refuses a value; of a connection it says other things.
        return Refusal(cause, SPLITS_OF_ROWS, is_untranslatable=False) if isinstance(cause, ValueError) else None
    if state == _QUERY_CANCELED:
        # By the role's ``statement_timeout``, which a slow trigger exceeds at each attempt. Our own cancellations end
        # in another way.
        return Refusal(cause, SPLITS_OF_TABLE, is_untranslatable=False)
    # Said of a statement that an ALTER TABLE has outdated, which is prepared anew.
    if state.startswith(_PASSING) or isinstance(error, NotSupportedError):
        return None
    splits = SPLITS_OF_TABLE if state.startswith(_OF_TABLE) else SPLITS_OF_ROWS
    return Refusal(cause, splits, is_untranslatable=state in _UNTRANSLATABLE)
