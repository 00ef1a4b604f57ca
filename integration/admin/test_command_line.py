"""Each command on a real PostgreSQL: what it prints, what it changes, and its exit code."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url

from integration.servers.missing import missing
from integration.servers.pgbouncer import running_pgbouncer
from integration.servers.postgres import ContainerPostgres, EmbeddedPostgres, PostgresServer
from integration.servers.process import ServerUnavailable

from .conftest import Run, Terminal

Put = Callable[..., None]

ROLE = "outbox_role_of_a_terminal"
PASSWORD = "s3cret-of-a-test"


def lines(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines() if line.strip()]


# ---------------------------------------------------------------------------------------------------------------- looks


def test_status(terminal: Terminal, put: Put, bury: Put) -> None:
    put(count=3)
    bury(count=2)
    said = terminal.run("status")
    assert said.code == 0
    assert lines(said.out)[0] == ["state", "flowing"]
    assert ["dead", "letters", "2"] in lines(said.out)
    found = terminal.run("status", "--json").json
    assert found["state"] == "flowing"
    [orders] = found["queues"]
    assert (orders["queue"], orders["ready"], orders["moved"]) == (
        "orders",
        {"rows": 3, "is_whole": True},
        {"rows": 2, "is_whole": True},
    )
    assert [each["table"] for each in found["tables"]] == ["outbox", "outbox_dlq"]


def test_the_state_in_a_word(terminal: Terminal, put: Put, sql: Run) -> None:
    put(age="2 min")
    assert terminal.run("status", "--json").json["state"] == "standing"
    sql("DROP INDEX outbox_ready_idx")
    assert terminal.run("status", "--json").json["state"] == "broken"


def test_queues_and_what_is_more_than_was_counted(terminal: Terminal, put: Put, sql: Run) -> None:
    put(count=40, age="90 s")
    put("reminders")
    sql("UPDATE outbox SET next_attempt_at = now() + interval '1 hour' WHERE queue = 'reminders'")
    said = terminal.run("queues", "--at-most", "2")
    assert lines(said.out)[1][1].endswith("+")
    assert "1 min 3" in said.out
    assert lines(said.out)[2] == ["reminders", "-", "-", "1", "-", "-", "-", "-"]
    assert [each["queue"] for each in terminal.run("queues", "--json").json] == ["orders", "reminders"]


def test_an_empty_outbox(terminal: Terminal) -> None:
    assert terminal.run("queues").out == "no queue has rows\n"
    assert terminal.run("dead", "list").out == "no dead letters\n"
    assert terminal.run("dead", "groups").out == "no dead letters\n"
    assert terminal.run("peek", "orders").out == "no such rows\n"


def test_watch_writes_a_line_for_each_look(terminal: Terminal, put: Put) -> None:
    put(count=2)
    said = terminal.run("watch", "--count", "3", "--interval", "0.1", "--json")
    looks = [json.loads(line) for line in said.out.splitlines()]
    assert [look[0]["ready"]["rows"] for look in looks] == [2, 2, 2]
    assert "orders" in terminal.run("watch", "--count", "2", "--interval", "0.1").out


def test_peek(terminal: Terminal, put: Put, sql: Run) -> None:
    put(count=30)
    said = terminal.run("peek", "orders", "--limit", "2", "--json")
    assert [(each["row"]["payload"], each["state"], each["size"]) for each in said.json] == [
        ('{"n": 1}', "ready", 8),
        ('{"n": 2}', "ready", 8),
    ]
    assert '{"n": 1}' in terminal.run("peek", "orders", "--limit", "1").out
    assert terminal.run("peek", "orders", "--state", "parked", "--json").json == []
    assert terminal.run("peek", "orders", "--state", "lost").code == 2
    assert sql("SELECT count(*) FROM outbox") == [(30,)]


def test_texts_of_others_move_no_terminal(terminal: Terminal, sql: Run) -> None:
    sql(
        "INSERT INTO outbox (queue, key, idempotency_key, payload) VALUES (%s, %s, 'i', %s)",
        "a\x1b[2J",
        "[bold]k",
        b"\x1b[31m\xff",
    )
    for arguments in (["queues"], ["status"], ["peek", "a\x1b[2J"], ["doctor"]):
        said = terminal.run(*arguments)
        assert "\x1b[2J" not in said.out
        assert "\x1b[31m" not in said.out
    assert "[bold]k" in terminal.run("peek", "a\x1b[2J").out
    [seen] = terminal.run("peek", "a\x1b[2J", "--json").json
    assert seen["row"]["payload"] == {"base64": "G1szMW3/"}


# --------------------------------------------------------------------------------------------------------- dead letters


def test_dead_letters_are_listed_grouped_and_shown(terminal: Terminal, bury: Put) -> None:
    bury(count=3, exception="ValueError: no 1")
    bury("invoices", count=2, exception="KeyError: 'x'", reason="rejected")
    assert [
        (each["queue"], each["reason"], each["kind"], each["count"])
        for each in terminal.run("dead", "groups", "--json").json["groups"]
    ] == [
        ("orders", "retries_exhausted", "ValueError", 3),
        ("invoices", "rejected", "KeyError", 2),
    ]
    assert lines(terminal.run("dead", "groups").out)[1][:3] == ["orders", "retries_exhausted", "ValueError"]
    [one, *_] = terminal.run("dead", "list", "--queue", "invoices", "--json").json
    assert len(terminal.run("dead", "list", "--limit", "2", "--json").json) == 2
    said = terminal.run("dead", "show", str(one["row"]["id"]))
    assert said.code == 0
    assert ["exception", "KeyError:", "'x'"] in lines(said.out)
    assert ["header", "content-type", "application/json"] in lines(said.out)
    nobody = terminal.run("dead", "show", "999999", "--json")
    assert (nobody.code, nobody.error) == (1, "there is no dead letter with the id 999999")


def test_without_yes_nothing_is_changed(terminal: Terminal, bury: Put, sql: Run) -> None:
    bury(count=5)
    for action in ("replay", "discard"):
        said = terminal.run("dead", action, "--queue", "orders")
        assert said.code == 0
        assert f"would {action} 5 dead letters; nothing was changed: add --yes" in said.out
        assert terminal.run("dead", action, "--all", "--json").json["selected"] == 5
    assert sql("SELECT count(*) FROM outbox_dlq") == [(5,)]


def test_nothing_is_changed_where_nothing_says_what(terminal: Terminal, bury: Put, sql: Run) -> None:
    bury(count=5)
    said = terminal.run("dead", "discard", "--yes")
    assert said.code == 2
    assert "discard which dead letters?" in said.err
    assert sql("SELECT count(*) FROM outbox_dlq") == [(5,)]


@pytest.mark.parametrize(
    ("which", "expected"),
    [
        (["--queue", "invoices"], 2),
        (["--key", "1"], 2),
        (["--reason", "rejected"], 2),
        (["--exception", "no such"], 3),
        (["--older-than", "200s"], 1),
        (["--older-than", "1h"], 0),
        (["--failed-after", "2000-01-01"], 5),
        (["--failed-before", "2000-01-01T00:00+02:00"], 0),
        (["--id", "1", "--id", "2"], 2),
        (["--queue", "invoices", "--key", "1"], 1),
        (["--all"], 5),
    ],
)
def test_replay_of_those_that_are_meant(
    terminal: Terminal, bury: Put, sql: Run, which: list[str], expected: int
) -> None:
    bury(count=3, exception="ValueError: no such order")
    bury("invoices", count=2, exception="KeyError: 'x'", reason="rejected")
    answer = terminal.run("dead", "replay", *which, "--yes", "--json")
    assert answer.code == 0
    assert (answer.json["done"], answer.json["left"]) == (expected, 0)
    assert sql("SELECT count(*) FROM outbox WHERE failed_at IS NULL") == [(expected,)]
    assert sql("SELECT count(*) FROM outbox_dlq") == [(5 - expected,)]


def test_discard_and_the_audit_line(terminal: Terminal, bury: Put, sql: Run) -> None:
    bury(count=7)
    said = terminal.run("dead", "discard", "--reason", "retries_exhausted", "--yes", "--batch", "2")
    assert (said.code, said.out) == (0, "discarded 7 dead letters\n")
    audit = json.loads(said.err.rpartition("audit: ")[2])
    assert (audit["action"], audit["which"], audit["count"]) == ("dead discard", {"reason": "retries_exhausted"}, 7)
    assert sql("SELECT (SELECT count(*) FROM outbox), (SELECT count(*) FROM outbox_dlq)") == [(0, 0)]


def test_one_for_which_a_live_message_stands_is_left(terminal: Terminal, bury: Put, put: Put, sql: Run) -> None:
    bury(count=2)
    sql("UPDATE outbox_dlq SET deduplicate = true WHERE idempotency_key = 'id-1'")
    put()
    sql("UPDATE outbox SET deduplicate = true")
    said = terminal.run("dead", "replay", "--all", "--yes")
    assert "replayed 1 dead letters; 1 are left: they failed meanwhile, a live message stands for them" in said.out


@pytest.mark.parametrize("option", ["--older-than", "--failed-after", "--failed-before"])
def test_times_that_cannot_be_read(terminal: Terminal, option: str) -> None:
    said = terminal.run("dead", "list", option, "soon")
    assert (said.code, said.err[: len(option) + 7]) == (2, f"error: {option}")


# ------------------------------------------------------------------------------------------------------------ judgement


def test_check(terminal: Terminal, sql: Run) -> None:
    assert terminal.run("check").out == "the tables are as they are declared\n"
    sql("ALTER TABLE outbox DROP CONSTRAINT outbox_sizes_check")
    said = terminal.run("check", "--json")
    assert (said.code, said.json) == (
        1,
        {"agrees": False, "differences": {"outbox": ["check 'outbox_sizes_check' is missing (docs/migrations.md)"]}},
    )
    assert "ddl upgrade" in terminal.run("check").out


def test_doctor(terminal: Terminal, put: Put) -> None:
    well = terminal.run("doctor", "--json")
    assert (well.code, {each["grade"] for each in well.json}) == (0, {"ok", "note"})
    put(age="1 hour")
    ill = terminal.run("doctor")
    assert ill.code == 1
    assert "'orders': 1 row could be taken, the first one for 1 h" in ill.out


def test_doctor_is_strict_where_that_is_wanted(terminal: Terminal, sql: Run) -> None:
    sql("ALTER TABLE outbox SET (autovacuum_enabled = false)")
    assert terminal.run("doctor").code == 0
    assert terminal.run("doctor", "--strict").code == 1


# ------------------------------------------------------------------------------------------------------------------ ddl


@pytest.fixture
def empty(postgres_server: PostgresServer) -> Iterator[Terminal]:
    """A database without our tables."""
    with postgres_server.database("TEMPLATE template0") as url:
        yield Terminal(url)


def run_all(url: str, statements: list[str]) -> None:
    import psycopg

    plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain, autocommit=True) as connection:
        for statement in statements:
            # As psql does: one command after the other.
            for command in filter(str.strip, statement.split(";\n")):
                connection.execute(command)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--table", 'odd "name:s', "--dlq-table", "graves"],
        ["--table", "a" * 63, "--dlq-table", "graves"],
        ["--schema", "shop"],
        ["--position-table", "outbox_position", "--control-table", "outbox_control", "--inbox-table", "inbox"],
        ["--schema", "shop", "--position-table", "Where", "--control-table", 'odd "name:s', "--inbox-table", "a" * 63],
    ],
    ids=["plain", "odd", "long", "schema", "optional", "optional-odd"],
)
def test_what_ddl_create_prints_is_what_check_wants(empty: Terminal, options: list[str]) -> None:
    run_all(empty.dsn, ["CREATE SCHEMA shop"])
    assert empty.run("check", *options).code == 1
    run_all(empty.dsn, empty.run("ddl", "create", *options, "--json").json)
    assert empty.run("check", *options).code == 0
    assert empty.run("status", *options, "--json").json["state"] == "flowing"
    # Each table and sequence that it names is there.
    works = ["consumer", "onlooker", "dead-letters"]
    works += ["pauses", "consumer-with-inbox", "inbox-pruner"] if "--inbox-table" in options else []
    run_all(empty.dsn, empty.run("ddl", "grants", *works, *options, "--role", "postgres", "--json").json)


def test_check_knows_optional_tables_by_their_names_or_by_that_of_the_outbox(terminal: Terminal, sql: Run) -> None:
    absent = terminal.run("check", "--inbox-table", "inbox", "--control-table", "controls", "--json")
    assert absent.code == 1
    assert absent.json["differences"] == {
        "controls": ["there is no such table"],
        "inbox": ["there is no such table"],
    }
    named = ["--position-table", "outbox_position", "--control-table", "outbox_control", "--inbox-table", "inbox"]
    creation = [each for each in terminal.run("ddl", "create", *named, "--json").json if "outbox_dlq" not in each]
    run_all(terminal.dsn, [each for each in creation if " outbox (" not in each and " ON outbox (" not in each])
    assert terminal.run("check", "--inbox-table", "inbox").code == 0
    sql("ALTER TABLE outbox_position DROP COLUMN token")
    sql("DROP INDEX outbox_control_pauses_idx")
    sql("ALTER TABLE inbox DROP CONSTRAINT inbox_pkey")
    differences = terminal.run("check", "--inbox-table", "inbox", "--json").json["differences"]
    assert differences == {
        "outbox_position": ["column 'token' is missing"],
        "outbox_control": ["index 'outbox_control_pauses_idx' is missing"],
        "inbox": ["the primary key is not (consumer, queue, idempotency_key), so repeats cannot be known"],
    }
    problems = [each["text"] for each in terminal.run("doctor", "--json").json if each["grade"] == "problem"]
    assert "outbox_position: column 'token' is missing" in problems
    assert "outbox_control: index 'outbox_control_pauses_idx' is missing" in problems


def test_a_name_for_two_tables_is_refused(terminal: Terminal) -> None:
    for command in (["check"], ["ddl", "create"]):
        said = terminal.run(*command, "--control-table", "outbox")
        assert (said.code, said.err) == (2, "error: --control-table: 'outbox' is the name of another of these tables\n")
    assert terminal.run("ddl", "grants", "pauses", "--role", "app").err == (
        "error: --control-table: the work pauses is done with this table; give its name\n"
    )


def test_what_ddl_upgrade_prints_mends_an_older_schema_and_may_run_twice(
    terminal: Terminal, sql: Run, bury: Put
) -> None:
    bury(count=3)
    for statement in (
        "ALTER TABLE outbox_dlq DROP CONSTRAINT outbox_dlq_pkey, DROP COLUMN outbox, ADD PRIMARY KEY (id)",
        "ALTER TABLE outbox DROP CONSTRAINT outbox_sizes_check, DROP CONSTRAINT outbox_headers_check",
        "DROP INDEX outbox_holding_idx",
    ):
        sql(statement)
    assert len(terminal.run("check", "--json").json["differences"]) == 2
    assert terminal.run("dead", "list", "--json").code == 0, "an older table can be looked at"
    statements = terminal.run("ddl", "upgrade", "--from-version", "0.0.9", "--json").json
    for _ in range(2):
        run_all(terminal.dsn, statements)
        assert terminal.run("check").code == 0
    assert terminal.run("ddl", "upgrade", "--from-version", "0.1.0").out == "-- Nothing has changed since then.\n"
    assert terminal.run("ddl", "upgrade", "--from-version", "0.1.0rc1", "--json").json == statements
    assert terminal.run("ddl", "upgrade", "--from-version", "latest").code == 2


def test_what_ddl_autovacuum_prints_is_taken(terminal: Terminal, sql: Run) -> None:
    run_all(terminal.dsn, terminal.run("ddl", "autovacuum", "--json").json)
    [(options,)] = sql("SELECT reloptions FROM pg_class WHERE relname = 'outbox'")
    assert "autovacuum_vacuum_threshold=10000" in options


@contextmanager
def role(terminal: Terminal, sql: Run, *works: str) -> Iterator[Terminal]:
    """A role with the privileges that ddl grants prints for its works."""
    sql(f"CREATE ROLE {ROLE} LOGIN PASSWORD '{PASSWORD}'")
    try:
        if works:
            run_all(terminal.dsn, terminal.run("ddl", "grants", *works, "--role", ROLE, "--json").json)
        url = make_url(terminal.dsn).set(username=ROLE, password=PASSWORD)
        yield Terminal(url.render_as_string(hide_password=False))
    finally:
        sql(f"DROP OWNED BY {ROLE}")
        sql(f"DROP ROLE {ROLE}")


def test_an_onlooker_may_look_and_change_nothing(terminal: Terminal, sql: Run, put: Put, bury: Put) -> None:
    put()
    bury()
    with role(terminal, sql, "onlooker") as onlooker:
        for arguments in (["status"], ["queues"], ["peek", "orders"], ["check"], ["dead", "list"], ["dead", "groups"]):
            assert onlooker.run(*arguments).code == 0, arguments
        findings = {each["check"]: each for each in onlooker.run("doctor", "--json").json}
        assert "permission denied" in findings["plans"]["text"]
        refused = onlooker.run("dead", "replay", "--all", "--yes", "--json")
        assert refused.code == 3
        assert "permission denied for table outbox" in refused.err
        assert PASSWORD not in refused.err


def test_who_may_see_to_dead_letters(terminal: Terminal, sql: Run, bury: Put) -> None:
    bury(count=2)
    with role(terminal, sql, "dead-letters") as support:
        assert support.run("dead", "replay", "--id", "1", "--yes", "--json").json["done"] == 1
        assert support.run("dead", "discard", "--all", "--yes", "--json").json["done"] == 1


def test_no_permission(terminal: Terminal, sql: Run) -> None:
    with role(terminal, sql) as stranger:
        said = stranger.run("queues")
    assert said.code == 3
    assert (
        "permission denied for table outbox (SQLSTATE 42501): grant this role what docs/operating.md lists" in said.err
    )


# ---------------------------------------------------------------------------------------------------- what can go wrong


def test_wrong_password(terminal: Terminal, sql: Run, postgres_server: PostgresServer) -> None:
    with role(terminal, sql) as stranger:
        wrong = make_url(stranger.dsn).set(password=f"{PASSWORD}-not").render_as_string(hide_password=False)
        if isinstance(postgres_server, EmbeddedPostgres):
            rules = postgres_server.data / "pg_hba.conf"
            before = rules.read_text()
            rules.write_text(f"host all {ROLE} all scram-sha-256\n{before}")
            postgres_server.execute("SELECT pg_reload_conf()")
            try:
                said = stranger.run("status", dsn=wrong)
            finally:
                rules.write_text(before)
                postgres_server.execute("SELECT pg_reload_conf()")
        elif isinstance(postgres_server, ContainerPostgres):
            said = stranger.run("status", dsn=wrong)
        else:
            missing("a PostgreSQL named by the environment may let in everybody")
    assert said.code == 3
    assert said.err == (
        f'error: password authentication failed for user "{ROLE}" (SQLSTATE 28P01): correct the password in --dsn\n'
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"port": 1}, "no server listens there: start it, or correct host and port in --dsn"),
        ({"host": "database.invalid"}, "correct the host in --dsn"),
        ({"database": "nowhere"}, "(SQLSTATE 3D000): create the database, or correct its name in --dsn"),
    ],
)
def test_a_database_that_cannot_be_reached(terminal: Terminal, change: dict[str, Any], words: str) -> None:
    url = make_url(terminal.dsn).set(password=PASSWORD, **change).render_as_string(hide_password=False)
    for arguments in (["queues"], ["doctor"], ["dead", "replay", "--all", "--yes"]):
        said = terminal.run(*arguments, "--json", dsn=url)
        assert (said.code, said.out) == (3, ""), arguments
        assert words in said.error
        assert PASSWORD not in said.err


def test_no_table(terminal: Terminal) -> None:
    said = terminal.run("queues", "--table", "outbx")
    assert said.code == 3
    assert said.err == (
        'error: relation "outbx" does not exist (SQLSTATE 42P01): run faststream-outbox ddl create, or correct '
        "--table, --schema, or correct --dsn or its role's search_path\n"
    )
    assert terminal.run("check", "--table", "outbx").code == 1
    assert terminal.run("doctor", "--table", "outbx").code == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["queues", "--dsn", "mysql://x/y"], "--dsn: must begin with postgresql:// or postgresql+asyncpg://"),
        (["queues", "--dsn", f"postgresql://u:{PASSWORD}@h:port/d"], ""),
        (["queues", "--table", ""], "--table: must be 1 to 63 bytes"),
        (
            ["queues", "--dsn-file", "/nowhere/dsn"],
            "--dsn-file: /nowhere/dsn cannot be read: No such file or directory",
        ),
        (["queues", "--at-most", "0"], "--at-most"),
        (["nonsense"], "nonsense"),
    ],
)
def test_a_command_that_is_given_wrongly(terminal: Terminal, arguments: list[str], words: str) -> None:
    said = terminal.run(*arguments)
    assert said.code in {2, 3}
    assert words in said.err
    assert PASSWORD not in said.err


def test_the_address_from_a_file_and_as_sqlalchemy_writes_it(terminal: Terminal, tmp_path: Path) -> None:
    file = tmp_path / "dsn"
    file.write_text(f"{terminal.dsn}?ssl=disable\n")
    assert terminal.run("check", "--dsn-file", str(file), dsn="postgresql://nowhere.invalid/x").code == 0


def test_a_statement_that_takes_too_long(terminal: Terminal, sql: Run, bury: Put) -> None:
    bury()
    sql("BEGIN")
    sql("LOCK TABLE outbox_dlq")
    said = terminal.run("dead", "list", "--timeout", "0.3")
    sql("ROLLBACK")
    assert said.code == 3
    assert "did not answer in time" in said.err


# ------------------------------------------------------------------------------------------------------ behind a pooler


@pytest.fixture(scope="module")
def pooler(postgres_server: PostgresServer) -> Iterator[Any]:
    try:
        with running_pgbouncer(postgres_server.url) as pooler:
            yield pooler
    except ServerUnavailable as unavailable:
        missing(str(unavailable))


def test_behind_a_pooler_in_transaction_mode(terminal: Terminal, pooler: Any, put: Put, bury: Put) -> None:
    put(count=3)
    bury(count=20)
    pooled = Terminal(pooler.url_of(terminal.dsn))
    for arguments in (["status"], ["queues"], ["peek", "orders"], ["check"], ["dead", "list"], ["dead", "groups"]):
        assert pooled.run(*arguments).code == 0, arguments
    assert pooled.run("watch", "--count", "8", "--interval", "0.1", "--json").code == 0
    findings = {each["check"]: each["grade"] for each in pooled.run("doctor", "--json").json}
    assert (findings["pooler"], findings["listen"]) == ("note", "warning")
    assert findings["plans"] == "ok"
    assert pooled.run("dead", "replay", "--all", "--yes", "--batch", "3", "--json").json["done"] == 20
