"""Errors around the database are put into words; all others keep their own, and their traceback."""

import socket

import pytest
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as NoConnectionLeftError

from faststream_outbox._store.postgres.advice import ADVICE, explain


class OfTheServer(Exception):
    """As asyncpg raises it."""

    def __init__(self, text: str, sqlstate: str) -> None:
        super().__init__(text)
        self.sqlstate = sqlstate


def wrapped(error: Exception) -> DBAPIError:
    """As SQLAlchemy raises it: the driver's error is behind an adapted one, with the statement in its text."""
    adapted = Exception(f"<class 'asyncpg'>: {error}")
    adapted.__cause__ = error
    return DBAPIError("SELECT 1", {"payload": "secret"}, adapted)


@pytest.mark.parametrize("code", sorted(ADVICE))
@pytest.mark.parametrize("wrap", [wrapped, lambda error: error], ids=["wrapped", "bare"])
def test_a_known_state_is_one_line_with_what_to_do(code: str, wrap: object) -> None:
    assert callable(wrap)
    text, is_whole = explain(wrap(OfTheServer("no such thing\nDETAIL:  a key\nHINT:  look", code)))
    assert text == f"no such thing (SQLSTATE {code}): {ADVICE[code]}"
    assert is_whole


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (ConnectionRefusedError(111, "Connect call failed ('127.0.0.1', 1)"), "no server listens there"),
        (socket.gaierror(-2, "Name or service not known"), "correct the host"),
        (ConnectionResetError(104, "reset"), "the connection was lost"),
        (TimeoutError(), "did not answer in time"),
        (NoConnectionLeftError("QueuePool limit of size 1 overflow 0 reached"), "pool are in use"),
        (OSError(113, "No route to host"), "cannot be reached"),
        (wrapped(type("InterfaceError", (Exception,), {})("connection is closed")), "the server's log says which"),
    ],
)
def test_a_network_that_is_away_is_one_line_too(error: Exception, advice: str) -> None:
    text, is_whole = explain(error)
    assert advice in text
    assert not text.startswith(":"), "an error without a text goes by its name"
    assert "\n" not in text
    assert is_whole


@pytest.mark.parametrize(
    "error",
    [
        wrapped(OfTheServer("duplicate key value", "23505")),
        OfTheServer("division by zero", "22012"),
        KeyError("a bug"),
        wrapped(type("InterfaceError", (Exception,), {})("another operation is in progress")),
    ],
)
def test_what_is_not_known_keeps_its_traceback(error: Exception) -> None:
    text, is_whole = explain(error)
    assert not is_whole
    assert text


def test_an_unknown_error_of_the_server_is_told_without_the_statement() -> None:
    assert explain(wrapped(OfTheServer("duplicate key value", "23505"))).text == "OfTheServer: duplicate key value"
