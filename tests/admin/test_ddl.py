"""The SQL that owners are given: the same privileges as docs/operating.md prints, and names that are quoted."""

import re
from pathlib import Path

import pytest
from sqlalchemy import MetaData

from faststream_outbox import (
    ConfigError,
    make_dlq_table,
    make_inbox_table,
    make_outbox_control_table,
    make_outbox_table,
    make_position_table,
)
from faststream_outbox._store.postgres.ddl import Work, autovacuum, creation, grants, upgrade

DOCS = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(r"^```sql\n(.*?)^```$", re.MULTILINE | re.DOTALL)
GRANT = re.compile(r"GRANT .*?;", re.DOTALL)
OUTBOX = make_outbox_table(MetaData())
DLQ = make_dlq_table(MetaData())
OTHERS = {
    "position_table": make_position_table(MetaData()),
    "control_table": make_outbox_control_table(MetaData()),
    "inbox_table": make_inbox_table(MetaData()),
}


def statements(sql: str) -> list[str]:
    return [" ".join(each.split()) for each in GRANT.findall(sql)]


@pytest.mark.parametrize(
    ("work", "headings"),
    [
        (Work.PUBLISHER, ["publisher"]),
        (Work.PUBLISHER_WITH_TEE, ["publisher with tee"]),
        (Work.PUBLISHER_WITH_TIMERS, ["publisher with timers"]),
        (Work.PUBLISHER_THAT_MOVES_TIMERS, ["publisher that moves timers"]),
        (
            Work.CONSUMER,
            [
                "consumer",
                "consumer with a dead-letter table",
                "consumer that sends exactly once",
                "consumer that heeds pauses",
            ],
        ),
        (Work.CONSUMER_WITH_INBOX, ["handler"]),
        (Work.INBOX_PRUNER, ["pruning"]),
        (Work.DEAD_LETTERS, ["dead letters", "dead letters with an audit log"]),
        (Work.PAUSES, ["pauses"]),
    ],
)
def test_grants_are_those_of_the_page(work: Work, headings: list[str]) -> None:
    blocks = [
        block
        for page in ("operating.md", "inbox.md")
        for block in BLOCK.findall((DOCS / page).read_text(encoding="utf-8"))
        if "GRANT" in block
    ]
    parts = re.split(r"^-- (.*)\n", "".join(blocks), flags=re.MULTILINE)
    printed = dict(zip(parts[1::2], parts[2::2], strict=True))
    on_the_page = [statement for heading in headings for statement in statements(printed[heading])]
    role = on_the_page[0].rpartition(" ")[2].rstrip(";")
    assert statements(grants(work, OUTBOX, DLQ, role=role, **OTHERS)) == on_the_page


@pytest.mark.parametrize("work", set(Work) - {Work.PAUSES, Work.CONSUMER_WITH_INBOX, Work.INBOX_PRUNER})
def test_nothing_is_said_of_tables_that_are_not_there(work: Work) -> None:
    alone = grants(work, OUTBOX, None, role="app")
    assert "Where there is" not in alone
    for name in ("outbox_dlq", "outbox_position", "outbox_control", "inbox TO"):
        assert name not in alone


@pytest.mark.parametrize(
    ("work", "table"), [(Work.PAUSES, "control"), (Work.CONSUMER_WITH_INBOX, "inbox"), (Work.INBOX_PRUNER, "inbox")]
)
def test_a_work_on_a_table_that_is_not_named(work: Work, table: str) -> None:
    with pytest.raises(ConfigError, match=f"--{table}-table: the work {work} is done with this table; give its name"):
        grants(work, OUTBOX, DLQ, role="app")


def test_names_are_quoted() -> None:
    odd = make_outbox_table(MetaData(), 'a"; DROP TABLE x; --', schema="Shop")
    graves = make_dlq_table(MetaData(), "Graves", schema="Shop")
    quoted = '"Shop"."a""; DROP TABLE x; --"'
    assert f'ON {quoted} TO "the role"' in grants(Work.CONSUMER, odd, graves, role="the role")
    assert 'ON SEQUENCE "Shop"."a""; DROP TABLE x; --_id_seq" TO "the role"' in grants(
        Work.CONSUMER, odd, graves, role="the role"
    )
    assert f"ALTER TABLE {quoted} SET" in autovacuum(odd)
    assert any(f"CREATE TABLE {quoted}" in statement for statement in creation([odd]))
    first, *others = upgrade(odd, graves)
    assert 'ALTER TABLE "Shop"."Graves"' in first
    assert 'DROP CONSTRAINT IF EXISTS "Graves_pkey"' in first
    assert any(f"ALTER TABLE {quoted}" in statement for statement in others)


@pytest.mark.parametrize(
    ("version", "is_needed"),
    [(None, True), ("0.0.1", True), ("0.1.0a1", True), ("v0.0", True), ("0.1.0", False), ("0.1", False), ("1", False)],
)
def test_what_an_upgrade_is_needed_for(version: str | None, is_needed: bool) -> None:
    assert bool([*upgrade(OUTBOX, DLQ, from_version=version)]) == is_needed


@pytest.mark.parametrize(
    ("table", "sequence"),
    [("a" * 56, f"{'a' * 56}_id_seq"), ("a" * 63, f"{'a' * 56}_id_seq"), ("é" * 31, f'"{"é" * 28}_id_seq"')],
)
def test_the_sequence_of_a_long_name_is_named_as_postgresql_names_it(table: str, sequence: str) -> None:
    assert f"ON SEQUENCE {sequence} TO" in grants(Work.CONSUMER, make_outbox_table(MetaData(), table), None, role="app")


def test_what_is_no_version() -> None:
    with pytest.raises(ConfigError, match=r"from_version: must be a version like 0\.1\.0, got 'newest'"):
        [*upgrade(OUTBOX, DLQ, from_version="newest")]


def test_the_settings_of_autovacuum_are_those_of_the_guide() -> None:
    def settings(statement: str) -> set[str]:
        return set(re.findall(r"autovacuum_\w+ = \d+", statement))

    page = (DOCS / "operating.md").read_text(encoding="utf-8")
    [printed] = [block for block in BLOCK.findall(page) if "autovacuum" in block]
    assert settings(printed) == settings(autovacuum(OUTBOX))
    assert len(settings(printed)) == 7
