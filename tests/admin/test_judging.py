"""What is wrong with the facts of a database, case by case."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from faststream_outbox._values.facts import (
    BlockerFacts,
    IndexFacts,
    PlanFacts,
    ServerFacts,
    SnapshotFacts,
    TableFacts,
)
from faststream_outbox._values.figures import Count, QueueFigures
from faststream_outbox._values.finding import Finding, Grade
from faststream_outbox._values.spans import size, span
from faststream_outbox.admin import judging

SERVER = ServerFacts(
    version="18.6",
    database="shop",
    role="app",
    takes_writes=True,
    is_standby=False,
    is_pooled=False,
    connections=10,
    most_connections=97,
    role_connections=3,
    role_limit=None,
    database_connections=5,
    database_limit=None,
    statement_timeout_ms=0,
)
TABLE = TableFacts(
    table="outbox",
    estimated_rows=500,
    dead_rows=20,
    table_bytes=2 * 1024 * 1024,
    index_bytes=1024,
    last_vacuum=datetime(2030, 1, 2, 3, 4, tzinfo=UTC),
    last_analyze=None,
    options=[],
    has_row_security=False,
    triggers=[],
)
READY = IndexFacts(
    table="outbox",
    name="outbox_ready_idx",
    is_valid=True,
    is_unique=False,
    columns=["queue", "shard", "id"],
    predicate="next_attempt_at IS NULL AND failed_at IS NULL",
)
PLAN = PlanFacts(statement="claim", scans=["Index Scan using outbox_ready_idx"], reads_whole_table=False)


def worst(findings: Any) -> Finding:
    order = list(Grade)
    return max(findings, key=lambda finding: order.index(finding.grade))


def bad(findings: Any) -> list[tuple[str, Grade]]:
    return [(finding.check, finding.grade) for finding in findings if finding.grade not in {Grade.OK, Grade.NOTE}]


def test_a_server_in_order() -> None:
    assert {finding.grade for finding in judging.server(SERVER)} == {Grade.OK}


@pytest.mark.parametrize(
    ("changes", "check", "grade", "words"),
    [
        ({"takes_writes": False, "is_standby": True}, "server", Grade.PROBLEM, "standby"),
        ({"takes_writes": False}, "server", Grade.PROBLEM, "default_transaction_read_only"),
        ({"connections": 78}, "connections", Grade.WARNING, "the server has 78 of 97"),
        ({"role_limit": 3}, "connections", Grade.WARNING, "role 'app' has 3 of 3"),
        ({"database_limit": 6}, "connections", Grade.WARNING, "database 'shop' has 5 of 6"),
        ({"statement_timeout_ms": 4999}, "timeouts", Grade.WARNING, "4999 ms"),
        ({"is_pooled": True}, "pooler", Grade.NOTE, "pooler"),
    ],
)
def test_what_is_wrong_with_a_server(changes: dict[str, Any], check: str, grade: Grade, words: str) -> None:
    found = worst(judging.server(replace(SERVER, **changes)))
    assert (found.check, found.grade) == (check, grade)
    assert words in found.text
    assert found.advice


@pytest.mark.parametrize("changes", [{"connections": 77}, {"role_limit": 4}, {"statement_timeout_ms": 5000}])
def test_what_is_not_yet_wrong_with_a_server(changes: dict[str, Any]) -> None:
    assert bad(judging.server(replace(SERVER, **changes))) == []


def test_tables_that_differ_are_named_with_the_command_that_mends_them() -> None:
    missing, older = judging.tables(
        {"outbox": ["there is no such table"], "outbox_dlq": ["column 'outbox' is missing"]}
    )
    assert missing.text == "outbox: there is no such table"
    assert "ddl create" in str(missing.advice)
    assert older.text == "outbox_dlq: column 'outbox' is missing"
    assert "ddl upgrade" in str(older.advice)
    assert bad(judging.tables({})) == []


def test_indexes_are_compared_by_what_they_are() -> None:
    written = "((next_attempt_at IS NULL) AND (failed_at IS NULL))"
    assert bad(judging.indexes([READY], [replace(READY, predicate=written), replace(READY, name="of the owner")])) == []
    assert bad(judging.indexes([READY], [])) == [], "what is missing is said of the tables"
    for changes in ({"predicate": None}, {"columns": ["queue", "id"]}, {"is_unique": True}, {"is_valid": False}):
        [found] = judging.indexes([READY], [replace(READY, **changes)])  # type: ignore[arg-type]
        assert (found.check, found.grade) == ("indexes", Grade.PROBLEM)
        assert "outbox_ready_idx" in found.text


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        ({"ready": Count(5), "oldest_seconds": 60.0}, []),
        ({"ready": Count(5), "oldest_seconds": 60.1}, [("queues", Grade.PROBLEM)]),
        ({"timers": Count(5), "next_due_seconds": 999.0}, []),
        ({"leased": Count(2), "leases_run_out": 1}, [("queues", Grade.PROBLEM)]),
        ({"parked": Count(2), "held": 1}, [("queues", Grade.WARNING)]),
        ({"moved": Count(2)}, []),
    ],
)
def test_queues_are_judged_by_age_leases_and_held_keys(figures: Any, expected: Any) -> None:
    found = list(judging.queues([QueueFigures(queue="orders", **figures)]))
    assert bad(found) == expected
    assert found


def test_dead_letters_are_worth_a_note_with_the_command_that_shows_them() -> None:
    [note, quiet] = judging.queues([QueueFigures(queue="a b", moved=Count(1000, is_whole=False))])
    assert (note.grade, note.text) == (Grade.NOTE, "'a b': 1,000+ dead letters")
    assert note.advice == "faststream-outbox dead groups --queue 'a b' says why"
    assert quiet.grade is Grade.OK


def test_copies_wait_for_their_forwarder() -> None:
    [found] = judging.queues([QueueFigures(queue="orders=>redis:orders", ready=Count(1), oldest_seconds=90.0)])
    assert "forwarder 'redis:orders'" in str(found.advice)


def test_names_of_others_write_no_lines_of_their_own() -> None:
    [found] = judging.queues([QueueFigures(queue="a\nok all is well", ready=Count(1), oldest_seconds=90.0)])
    assert "\n" not in found.text


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, []),
        ({"dead_rows": 100_000}, []),
        ({"dead_rows": 100_001}, [("dead rows", Grade.WARNING)]),
        ({"dead_rows": 100_001, "estimated_rows": 100_001}, []),
        ({"options": ["autovacuum_enabled=false"]}, [("dead rows", Grade.WARNING)]),
        ({"has_row_security": True}, [("rules", Grade.WARNING)]),
        ({"triggers": ["audit"]}, []),
        ({"estimated_rows": -1, "last_vacuum": None}, []),
    ],
)
def test_statistics_of_a_table(changes: dict[str, Any], expected: Any) -> None:
    assert bad(judging.statistics([replace(TABLE, **changes)])) == expected


def test_a_table_is_read_whole_only_where_it_is_large() -> None:
    whole = replace(PLAN, scans=["Seq Scan of outbox"], reads_whole_table=True)
    assert bad(judging.plans([whole], estimated_rows=10_000)) == []
    assert bad(judging.plans([PLAN, whole], estimated_rows=10_001)) == [("plans", Grade.PROBLEM)]
    assert bad(judging.plans([PLAN], estimated_rows=10**9)) == []


def test_who_holds_snapshots_and_who_blocks_is_named() -> None:
    session = SnapshotFacts(
        kind="session", name="pid 7", user="report", application="psql", state="idle in transaction", seconds=7_300.0
    )
    [found] = judging.snapshots([session])
    assert found.grade is Grade.WARNING
    assert "'pid 7' of user 'report' ('psql') holds a snapshot for 2 h 1 min" in found.text
    [blocker] = judging.blockers(
        [BlockerFacts(pid=9, user="dba", application="psql", state="idle in transaction", seconds=61.0, waiting=2)]
    )
    assert blocker.grade is Grade.PROBLEM
    assert "2 sessions waiting for pid 9 of user 'dba'" in blocker.text
    [prepared] = judging.blockers(
        [BlockerFacts(pid=0, user=None, application=None, state=None, seconds=None, waiting=1)]
    )
    assert "prepared transaction" in prepared.text
    assert bad([*judging.snapshots([]), *judging.blockers([])]) == []


def test_listening() -> None:
    queues = [QueueFigures(queue="orders", ready=Count(1)), QueueFigures(queue="idle", timers=Count(1))]
    assert bad(judging.listening(None, queues, 0.0)) == [("listen", Grade.WARNING)]
    assert bad(judging.listening(frozenset(), queues, 0.0)) == [], "nobody was waited for"
    assert bad(judging.listening(frozenset({"orders"}), queues, 65.0)) == []
    assert bad(judging.listening(frozenset({"other"}), queues, 65.0)) == [("consumers", Grade.PROBLEM)]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, "-"),
        (0.0, "0 ms"),
        (0.25, "250 ms"),
        (1.9, "1 s"),
        (60.0, "1 min"),
        (3_600.0, "1 h"),
        (3_661.0, "1 h 1 min"),
        (86_400.0 * 3 + 7, "3 d"),
    ],
)
def test_spans(seconds: float | None, words: str) -> None:
    assert span(seconds) == words


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1 KiB"), (3 * 1024**3, "3 GiB"), (1024**5, "1,024.0 TiB")],
)
def test_sizes(count: int, words: str) -> None:
    assert size(count) == words
