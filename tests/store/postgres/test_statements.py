"""How statements are given to the server."""

import re

import pytest
from sqlalchemy import MetaData, TextClause

from faststream_outbox import make_dlq_table, make_inbox_table, make_outbox_table, make_position_table
from faststream_outbox._store.postgres.driver import DriverStatement
from faststream_outbox._store.postgres.statements import Statements, Take, load_for

LEADING_COMMENT = re.compile(r"^/\*.*?\*/")
"""What OpenTelemetry's instrumentations of SQLAlchemy and asyncpg remove before they look for the first word."""


def texts() -> dict[str, str]:
    statements = Statements(
        make_outbox_table(MetaData()), make_dlq_table(MetaData()), make_position_table(MetaData()), notify=True
    )
    found: dict[str, str] = {}
    for name, value in [*vars(statements).items(), *vars(statements.positions).items()]:
        for number, each in enumerate(value if isinstance(value, list | Take) else [value]):
            clause = each._statement if isinstance(each, DriverStatement) else each
            if isinstance(clause, TextClause):
                found[f"{name}-{number}"] = clause.text
    found |= {name: each._statement.text for name, each in statements.insert_staged._asdict().items()}
    found["inbox_enter"] = load_for(make_inbox_table(MetaData()), "inbox_enter").text
    return found


@pytest.mark.parametrize(("name", "statement"), texts().items(), ids=texts())
def test_tools_see_what_a_statement_is(name: str, statement: str) -> None:
    assert re.match(r"/\* outbox [a-z_]+ \*/ ", statement)
    assert LEADING_COMMENT.sub("", statement).split()[0] in {"SELECT", "WITH", "INSERT", "UPDATE", "DELETE"}


def test_all_statements_were_seen() -> None:
    assert len(texts()) > 40
