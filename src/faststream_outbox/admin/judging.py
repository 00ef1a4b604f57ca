"""What is right and what is wrong about the facts of a database, and what to do about it."""

import re
from collections.abc import Iterator, Mapping, Sequence
from shlex import quote

from faststream_outbox._values.control import Scope, StoredPause
from faststream_outbox._values.facts import (
    BlockerFacts,
    IndexFacts,
    PlanFacts,
    ServerFacts,
    SnapshotFacts,
    TableFacts,
)
from faststream_outbox._values.figures import QueueFigures
from faststream_outbox._values.finding import Finding, Grade
from faststream_outbox._values.overview import STANDING_SECONDS
from faststream_outbox._values.printable import printable
from faststream_outbox._values.spans import size, span

FULL = 0.8
"""Of the connections that are permitted: what is left then is soon gone when processes start."""

MANY_ROWS = 10_000
"""In a smaller table, to read all of it is no mistake."""

MANY_DEAD_ROWS = 100_000
SHORT_TIMEOUT_MS = 5_000
"""A claim or a hand-over behind a backlog may take seconds."""

_AUTOVACUUM = "faststream-outbox ddl autovacuum prints settings for the table"


def server(facts: ServerFacts) -> Sequence[Finding]:
    """Judge whether the server takes writes, and has connections left."""
    where = f"PostgreSQL {facts.version}, database {facts.database!r}, as role {facts.role!r}"
    if facts.takes_writes:
        found = [Finding(check="server", grade=Grade.OK, text=where)]
    else:
        kind = "it is a standby" if facts.is_standby else "its sessions read only (default_transaction_read_only)"
        found = [_problem("server", f"{where}: it takes no writes, since {kind}", "point the engine to the primary")]
    if facts.is_pooled:
        text = "a pooler stands between: the process that answers is not the one that was connected to"
        advice = 'docs/operating.md, "Behind PgBouncer", has the settings that engines need'
        found.append(Finding(check="pooler", grade=Grade.NOTE, text=text, advice=advice))
    if 0 < facts.statement_timeout_ms < SHORT_TIMEOUT_MS:
        text = f"statement_timeout of role {facts.role!r} is {facts.statement_timeout_ms} ms"
        found.append(_warning("timeouts", text, "raise it: behind a backlog, a claim or a hand-over may take seconds"))
    return [*found, *_connections(facts)]


def _connections(facts: ServerFacts) -> Iterator[Finding]:
    limits = (
        ("the server", facts.connections, facts.most_connections),
        (f"role {facts.role!r}", facts.role_connections, facts.role_limit),
        (f"database {facts.database!r}", facts.database_connections, facts.database_limit),
    )
    full = [(who, used, limit) for who, used, limit in limits if limit is not None and used > FULL * limit]
    for who, used, limit in full:
        text = f"{who} has {used} of {limit} connections"
        yield _warning(
            "connections", text, 'raise the limit, or give processes smaller pools: docs/operating.md, "Connections"'
        )
    if not full:
        text = f"{facts.connections} of {facts.most_connections} connections are in use"
        yield Finding(check="connections", grade=Grade.OK, text=text)


def tables(differences: Mapping[str, Sequence[str]]) -> Sequence[Finding]:
    """Judge whether the tables are what the code declares."""
    if not differences:
        return [Finding(check="tables", grade=Grade.OK, text="the tables are as they are declared")]
    return [
        _problem("tables", f"{table}: {problem}", advice_for(problem))
        for table, problems in differences.items()
        for problem in problems
    ]


def advice_for(difference: str) -> str:
    """Return which command prints what mends a difference."""
    if difference == "there is no such table":
        return (
            "faststream-outbox ddl create prints the statements that create it (--position-table, --control-table and "
            "--inbox-table name the optional ones); or correct the table's name or schema"
        )
    return "faststream-outbox ddl upgrade prints the statements for a table of an earlier release"


def indexes(declared: Sequence[IndexFacts], found: Sequence[IndexFacts]) -> Sequence[Finding]:
    """Judge whether each index can be used, and is what its name says. That one is missing is the tables' matter."""
    by_name = {(index.table, index.name): index for index in found}
    wrong = [
        _problem(
            "indexes",
            f"{index.table}: index {index.name!r} is not valid, so nothing uses it",
            f"REINDEX INDEX CONCURRENTLY {index.name}",
        )
        for index in found
        if not index.is_valid
    ]
    for index in declared:
        other = by_name.get((index.table, index.name))
        if other is not None and _shape(other) != _shape(index):
            text = f"{index.table}: index {index.name!r} is on {_in_words(other)}, and not on {_in_words(index)}"
            wrong.append(_problem("indexes", text, "drop it, and create it as faststream-outbox ddl create prints it"))
    return wrong or [Finding(check="indexes", grade=Grade.OK, text=f"{len(found)} indexes are valid and as declared")]


def _shape(index: IndexFacts) -> tuple[object, ...]:
    # The server writes a condition with parentheses and types of its own.
    predicate = re.sub(r"::\w+|[()\s]", "", index.predicate or "").lower()
    return index.is_unique, tuple(column.strip('"') for column in index.columns), predicate


def _in_words(index: IndexFacts) -> str:
    unique = "unique " if index.is_unique else ""
    return f"{unique}({', '.join(index.columns)})" + (f" where {index.predicate}" if index.predicate else "")


def pauses(found: Sequence[StoredPause]) -> Sequence[Finding]:
    """Name what somebody has paused for all processes."""
    return [
        _warning("pauses", f"paused: {pause}", f"faststream-outbox resume {_options_of(pause.scope)} ends it")
        for pause in found
    ]


def _options_of(scope: Scope) -> str:
    return " ".join(f"--{name} {quote(printable(value))}" for name, value in scope.given().items())


def queues(all_figures: Sequence[QueueFigures]) -> Iterator[Finding]:
    """Judge each queue by how long its first row stands, by its leases and by its dead letters."""
    quiet = True
    for figures in all_figures:
        name = printable(figures.queue)
        for finding in _queue(name, figures):
            quiet = quiet and finding.grade is Grade.NOTE
            yield finding
    if quiet:
        yield Finding(
            check="queues", grade=Grade.OK, text=f"no row of {_number(len(all_figures), 'queue')} waits for long"
        )


def _queue(name: str, figures: QueueFigures) -> Iterator[Finding]:
    if figures.leases_run_out:
        text = f"{name!r}: the leases of {_number(figures.leases_run_out, 'row')} have run out"
        yield _problem("queues", text, "no process releases them: start one that consumes this queue")
    if (figures.oldest_seconds or 0.0) > STANDING_SECONDS and not figures.is_paused:
        text = f"{name!r}: {_rows(figures)} could be taken, the first one for {span(figures.oldest_seconds)}"
        whose = "its subscriber" if figures.forwarder is None else f"forwarder {printable(figures.forwarder)!r}"
        advice = (
            f"is a process with {whose} running, and is its destination up? Its log says so; "
            "doctor --listen 65 finds out whether anybody consumes the queue"
        )
        yield _problem("queues", text, advice)
    if figures.held:
        text = f"{name!r}: {_number(figures.held, 'dead letter')} of the kind that holds its key: later rows wait"
        yield _warning("queues", text, f"replay or discard: faststream-outbox dead list --queue {quote(name)}")
    if figures.dead.rows:
        text = f"{name!r}: {figures.dead} dead letter{'' if figures.dead.rows == 1 else 's'}"
        advice = f"faststream-outbox dead groups --queue {quote(name)} says why"
        yield Finding(check="dead letters", grade=Grade.NOTE, text=text, advice=advice)


def holders(figures: QueueFigures, who: Sequence[str]) -> Sequence[Finding]:
    """Name the sessions that hold the shards of a queue that stands."""
    name = printable(figures.queue)
    return [
        Finding(
            check="holders",
            grade=Grade.NOTE,
            text=f"{name!r}: shards that have rows are held by {printable(each)}",
            advice="a forwarder holds a shard for seconds; SELECT pg_terminate_backend(pid) ends another session",
        )
        for each in who
    ]


def blockers(found: Sequence[BlockerFacts]) -> Sequence[Finding]:
    """Judge the sessions for which others wait."""
    if not found:
        return [Finding(check="blockers", grade=Grade.OK, text="no session waits for a lock of another on the tables")]
    return [
        _problem(
            "blockers",
            f"{_number(each.waiting, 'session')} waiting for {_who(each)}",
            "let it end its transaction, or end it with SELECT pg_terminate_backend(pid)",
        )
        for each in found
    ]


def _who(each: BlockerFacts) -> str:
    if not each.pid:
        return "a prepared transaction: SELECT * FROM pg_prepared_xacts"
    since = "" if each.seconds is None else f", in a transaction for {span(each.seconds)}"
    return f"pid {each.pid} of user {each.user!r} ({printable(each.application or '')!r}, {each.state}{since})"


def statistics(facts: Sequence[TableFacts]) -> Sequence[Finding]:
    """Judge dead rows, and what of the owner's own changes how rows are written."""
    return [finding for each in facts for finding in _statistics(each)]


def _statistics(facts: TableFacts) -> Iterator[Finding]:
    rows = "unknown" if facts.estimated_rows < 0 else f"about {facts.estimated_rows:,}"
    seen = f"{rows} rows in {size(facts.table_bytes)}, indexes {size(facts.index_bytes)}"
    seen += f", about {facts.dead_rows:,} dead rows"
    if facts.dead_rows > max(MANY_DEAD_ROWS, facts.estimated_rows):
        when = "never" if facts.last_vacuum is None else f"{facts.last_vacuum:%Y-%m-%d %H:%M} UTC"
        text = f"{facts.table}: {seen}; the last vacuum was: {when}"
        yield _warning("dead rows", text, f"look for what holds a snapshot, below; {_AUTOVACUUM}")
    else:
        yield Finding(check="dead rows", grade=Grade.OK, text=f"{facts.table}: {seen}")
    if "autovacuum_enabled=false" in facts.options or "autovacuum_enabled=off" in facts.options:
        yield _warning("dead rows", f"{facts.table}: autovacuum is off for this table", _AUTOVACUUM)
    if facts.has_row_security:
        text = f"{facts.table}: row level security is on: a role sees the rows that its policies show"
        yield _warning("rules", text, "consumers need a policy that shows them all rows, or BYPASSRLS")
    if facts.triggers:
        text = f"{facts.table}: triggers of your own run with each write: {', '.join(map(printable, facts.triggers))}"
        yield Finding(check="rules", grade=Grade.NOTE, text=text)


def plans(found: Sequence[PlanFacts], *, estimated_rows: int) -> Sequence[Finding]:
    """Judge whether consumers' statements go by an index."""
    wrong = [plan for plan in found if plan.reads_whole_table and estimated_rows > MANY_ROWS]
    if not wrong:
        return [
            Finding(check="plans", grade=Grade.OK, text=f"{len(found)} statements of consumers go by their indexes")
        ]
    return [
        _problem(
            "plans",
            f"{plan.statement} reads the whole table: {', '.join(dict.fromkeys(plan.scans))}",
            "run ANALYZE on the table; then look whether enable_indexscan or a missing index is the cause",
        )
        for plan in wrong
    ]


def snapshots(found: Sequence[SnapshotFacts]) -> Sequence[Finding]:
    """Judge what keeps deleted rows from being cleaned up."""
    if not found:
        return [Finding(check="snapshots", grade=Grade.OK, text="nothing keeps deleted rows from being cleaned up")]
    return [
        _warning(
            "snapshots",
            _snapshot(each),
            'end it: the table grows meanwhile; see docs/operating.md, "Long transactions"',
        )
        for each in found
    ]


def _snapshot(each: SnapshotFacts) -> str:
    whose = "" if each.user is None else f" of user {each.user!r}"
    what = f" ({printable(each.application)!r})" if each.application else ""
    since = "" if each.seconds is None else f" for {span(each.seconds)}"
    state = "" if each.state is None else f", {each.state}"
    return f"{each.kind} {printable(each.name)!r}{whose}{what} holds a snapshot{since}{state}"


def listening(
    consumed: frozenset[str] | None, all_figures: Sequence[QueueFigures], seconds: float
) -> Sequence[Finding]:
    """Judge whether notifications arrive, and which queues nobody has announced."""
    if consumed is None:
        return [
            _warning(
                "listen",
                "a notification did not arrive: consumers on this address poll instead",
                'let engines listen around the pooler: docs/operating.md, "Behind PgBouncer"',
            )
        ]
    found = [Finding(check="listen", grade=Grade.OK, text="notifications arrive")]
    if not seconds:
        text = "not looked for: processes announce once a minute what they consume"
        return [
            *found,
            Finding(check="consumers", grade=Grade.NOTE, text=text, advice="doctor --listen 65 waits for it"),
        ]
    names = ", ".join(map(printable, sorted(consumed))) or "-"
    text = f"{_number(len(consumed), 'queue')} announced within {seconds:g} s: {names}"
    found.append(Finding(check="consumers", grade=Grade.OK, text=text))
    return [*found, *(_unconsumed(each) for each in all_figures if each.backlog.rows and each.queue not in consumed)]


def _unconsumed(figures: QueueFigures) -> Finding:
    text = f"{printable(figures.queue)!r}: {_rows(figures)}, and no process has announced that it consumes them"
    return _problem("consumers", text, "start its consumer, or correct the name that the publisher uses")


def _problem(check: str, text: str, advice: str) -> Finding:
    return Finding(check=check, grade=Grade.PROBLEM, text=text, advice=advice)


def _warning(check: str, text: str, advice: str) -> Finding:
    return Finding(check=check, grade=Grade.WARNING, text=text, advice=advice)


def _rows(figures: QueueFigures) -> str:
    return f"{figures.backlog} row{'' if figures.backlog.rows == 1 else 's'}"


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
