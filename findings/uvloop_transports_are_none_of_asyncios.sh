#!/usr/bin/env bash
# Streams on uvloop, and what code asks their transports.
#
# Guess:  asyncio.open_connection() gives a writer whose transport is an asyncio.Transport on every event loop, so
#         isinstance(transport, asyncio.WriteTransport) finds those that can be aborted. What get_extra_info("socket")
#         gave raises OSError once the connection is closed, as a socket does.
# Truth:  uvloop's TCP transport has the methods, and none of the classes: isinstance is False, and code that aborts only a
#         WriteTransport, and closes all else, sends on what is buffered. Its socket is a stand-in, which makes a socket of the
#         descriptor for each call: after the end that is negative, and setsockopt raises ValueError.
# Seen with: uvloop 0.23.0, Python 3.11.
set -euo pipefail
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check uvloop==0.23.0
cat >"$folder/see.py" <<'PY'
import asyncio, socket, struct, sys
import uvloop

async def look() -> tuple[bool, str]:
    server = await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", 0)
    _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    is_one = isinstance(writer.transport, asyncio.WriteTransport)
    stream_socket = writer.get_extra_info("socket")
    writer.transport.abort()
    await asyncio.sleep(0.1)
    try:
        stream_socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        said = "nothing"
    except Exception as error:
        said = type(error).__name__
    server.close()
    return is_one, said

found = {run.__module__: run(look()) for run in (asyncio.run, uvloop.run)}
for loop, (is_one, said) in found.items():
    print(f"{loop}: a WriteTransport: {is_one}; setsockopt after abort(): {said}")
sys.exit(0 if [*found.values()] == [(True, "OSError"), (False, "ValueError")] else 1)
PY
"$folder/venv/bin/python" "$folder/see.py" || { echo "CHANGED: uvloop's transports are asyncio's, or end as sockets do"; exit 1; }
echo "As found: uvloop's transports are none of asyncio's."
