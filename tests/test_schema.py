"""What the two tables may be called, and what their indexes are called then."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import MetaData, Table
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.schema import CreateTable

from faststream_outbox._store.postgres.listener import channel_of
from faststream_outbox.exceptions import ConfigError
from faststream_outbox.schema import (
    MAX_IDENTIFIER_BYTES,
    make_dlq_table,
    make_inbox_table,
    make_outbox_control_table,
    make_outbox_table,
    make_position_table,
)

FACTORIES = [make_outbox_table, make_dlq_table, make_outbox_control_table]

names = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1).filter(
    lambda name: len(name.encode()) <= MAX_IDENTIFIER_BYTES
)


def indexes(table: Table) -> list[str]:
    return [str(index.name) for index in table.indexes]


class Base(DeclarativeBase): ...


@pytest.mark.parametrize("factory", [*FACTORIES, make_inbox_table, make_position_table])
@pytest.mark.parametrize(
    ("given_", "words"), [(Base, "got Base; write {}(Base.metadata)"), (7, "got int; write {}(Base.metadata)")]
)
def test_what_is_no_metadata_is_refused(factory: Any, given_: object, words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        factory(given_)
    assert str(refused.value) == f"metadata: must be a MetaData, {words.format(factory.__name__)}"


@pytest.mark.parametrize("factory", FACTORIES)
@pytest.mark.parametrize("argument", ["table_name", "schema"])
@pytest.mark.parametrize("name", ["", "x" * 64, "é" * 32, "a\x00b", "\ud800" * 22])
def test_a_name_that_postgresql_would_change_is_refused(factory: object, argument: str, name: str) -> None:
    with pytest.raises(ConfigError, match=f"^{argument}: must be 1 to 63 bytes"):
        factory(MetaData(), **{argument: name})


@pytest.mark.parametrize("factory", FACTORIES)
@pytest.mark.parametrize("argument", ["table_name", "schema"])
@pytest.mark.parametrize("name", ["x", "x" * 63, "é" * 31])
def test_a_name_that_postgresql_keeps_is_accepted(factory: object, argument: str, name: str) -> None:
    assert name in factory(MetaData(), **{argument: name}).fullname


@pytest.mark.parametrize("factory", FACTORIES)
def test_a_lone_surrogate_is_refused(factory: object) -> None:
    with pytest.raises(ConfigError, match=r"^table_name: must be .* UTF-8"):
        factory(MetaData(), "a\ud800")


def test_short_names_are_readable() -> None:
    assert "outbox_ready_idx" in indexes(make_outbox_table(MetaData()))
    assert indexes(make_dlq_table(MetaData())) == ["outbox_dlq_failed_idx"]


@pytest.mark.parametrize("factory", FACTORIES)
@given(first=names, second=names)
def test_indexes_have_names_of_their_own(factory: object, first: str, second: str) -> None:
    metadata = MetaData()
    made = indexes(factory(metadata, first))
    if second != first:
        made += indexes(factory(metadata, second))
    assert len(set(made)) == len(made)
    assert max(len(name.encode()) for name in made) <= MAX_IDENTIFIER_BYTES


@pytest.mark.parametrize("convention", [{}, {"ck": "ck_%(table_name)s_%(constraint_name)s"}])
def test_checks_have_their_names_whatever_the_convention_of_the_metadata(convention: dict[str, str]) -> None:
    def checks(table: Table) -> set[str]:
        made = CreateTable(table).compile(dialect=postgresql.dialect())
        return set(re.findall("CONSTRAINT (\\S+) CHECK", str(made)))

    metadata = MetaData(naming_convention=convention)
    assert checks(make_outbox_table(metadata)) == {"outbox_headers_check", "outbox_sizes_check"}
    long = checks(make_outbox_table(metadata, "x" * 63))
    assert len({name[:63] for name in long}) == 2
    assert all(len(name) <= 63 for name in long)


@given(first=st.tuples(names, names | st.none()), second=st.tuples(names, names | st.none()))
def test_no_two_tables_share_a_channel(first: tuple[str, str | None], second: tuple[str, str | None]) -> None:
    channels = {channel_of(make_outbox_table(MetaData(), name, schema=schema)) for name, schema in (first, second)}
    assert len(channels) == len({first, second})
    assert max(len(channel.encode()) for channel in channels) <= MAX_IDENTIFIER_BYTES


@pytest.mark.parametrize("pair", [[("b:c", "a"), ("c", "a:b")], [("a.b", None), ("b", "a")], [("x", None), ("x", "x")]])
def test_a_schema_and_a_name_do_not_run_together(pair: list[tuple[str, str | None]]) -> None:
    assert len({channel_of(make_outbox_table(MetaData(), name, schema=schema)) for name, schema in pair}) == 2
