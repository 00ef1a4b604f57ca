#!/usr/bin/env bash
# A script of Redis, and a user who may not run one of its commands.
#
# Guess:  a script is one step: if the user lacks a right for one of its commands, nothing of it is done, and the client raises
#         what it raises for that command alone (NOPERM, redis-py's NoPermissionError).
# Truth:  rights are looked at command by command, while the script runs. What it has written before the denied command
#         stays, and the caller gets a plain ERR, redis-py's ResponseError, whose text names neither the command nor the
#         user. So code that looks for NoPermissionError does not see it, and a marker that is written last is missing beside
#         entries that are there. A MULTI with the same commands, ended by DISCARD, tells the rights before anything is done.
# Seen with: Debian 12's redis-server 7.0.15 (must be installed), redis-py 8.1.0, Python 3.11.
set -euo pipefail
folder=$(mktemp -d) && trap 'kill "$server" 2>/dev/null; rm -rf "$folder"' EXIT
server=
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check redis==8.1.0
redis-server --port 0 --unixsocket "$folder/redis.sock" --save '' --dir "$folder" >/dev/null &
server=$!
cat >"$folder/see.py" <<'PY'
import sys, time
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError, NoPermissionError, ResponseError

SCRIPT = "redis.call('RPUSH', KEYS[1], 'entry') redis.call('SET', KEYS[2], 'marker')"
owner = Redis(unix_socket_path=sys.argv[1])
for _ in range(100):
    try:
        owner.ping()
        break
    except RedisConnectionError:
        time.sleep(0.1)
print("Redis", owner.info("server")["redis_version"])
owner.execute_command("ACL", "SETUSER", "app", "on", ">secret", "~*", "+eval", "+rpush", "+multi", "+discard")
app = Redis(unix_socket_path=sys.argv[1], username="app", password="secret", single_connection_client=True)

def outcome(run) -> Exception | None:
    try:
        run()
    except Exception as error:
        print(f"  {type(error).__name__}: {error}")
        return error

print("SET alone:")
alone = outcome(lambda: app.execute_command("SET", "marker", "x"))
print("RPUSH and SET in a script:")
scripted = outcome(lambda: app.execute_command("EVAL", SCRIPT, 2, "entries", "marker"))
entries = owner.lrange("entries", 0, -1)
print(f"  afterwards: entries {entries}, marker {owner.get('marker')}")
print("SET behind MULTI, then DISCARD:")
app.execute_command("MULTI")
beforehand = outcome(lambda: app.execute_command("SET", "marker", "x"))
app.execute_command("DISCARD")
ok = isinstance(alone, NoPermissionError) and isinstance(beforehand, NoPermissionError)
ok = ok and isinstance(scripted, ResponseError) and not isinstance(scripted, NoPermissionError) and entries == [b"entry"]
sys.exit(0 if ok else 1)
PY
"$folder/venv/bin/python" "$folder/see.py" "$folder/redis.sock" || { echo "CHANGED: a denied command undoes its script, or is named"; exit 1; }
echo "As found: what a script wrote before a denied command stays."
