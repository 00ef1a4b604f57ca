#!/usr/bin/env bash
# A request of aiokafka's client that has timed out, and a server that reads again later.
#
# Guess:  after RequestTimedOutError the client has closed the connection, so what the server had not read by then never
#         reaches it. Who sends the batch again over a new connection sends it behind nothing.
# Truth:  the connection is closed as a stream is closed: what is buffered, in asyncio and in the kernel, is sent on for
#         as long as the peer's window and TCP's retransmissions take. A server (or a network) that was away longer than
#         request_timeout_ms gets the old batch whole, perhaps behind newer ones of the same partition. Only the sequence
#         numbers of an idempotent producer would show that. transport.abort() with a linger time of zero, before or just
#         after that close, throws the rest away.
# Seen with: aiokafka 0.14.0, Python 3.11, Linux 6.18.
set -euo pipefail
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check aiokafka==0.14.0
cat >"$folder/see.py" <<'PY'
import asyncio, contextlib, socket, struct, sys
from aiokafka.client import AIOKafkaClient
from aiokafka.cluster import ClusterMetadata
from aiokafka.errors import RequestTimedOutError
from aiokafka.protocol.produce import ProduceRequest

SIZE = 8 * 1024 * 1024  # more than the buffers of both ends
NO_LINGER = struct.pack("ii", 1, 0)

async def look(*, resets: bool) -> int:
    """Return how many bytes of a timed out request a server gets that reads on when the client has given up."""
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    listening.setblocking(False)
    address = f"127.0.0.1:{listening.getsockname()[1]}"
    loop = asyncio.get_running_loop()
    client = AIOKafkaClient(bootstrap_servers=address, request_timeout_ms=1000)
    client.cluster = ClusterMetadata(bootstrap_servers=address)
    [server] = client.cluster.brokers()

    async def serve() -> socket.socket:
        peer, _ = await loop.sock_accept(listening)
        (length,) = struct.unpack(">i", await loop.sock_recv(peer, 4))
        request = await loop.sock_recv(peer, length)  # which versions do you speak?
        answer = request[4:8] + struct.pack(">hi", 0, 2) + struct.pack(">hhh", 0, 0, 7) + struct.pack(">hhh", 18, 0, 0)
        await loop.sock_sendall(peer, struct.pack(">i", len(answer)) + answer)
        return peer  # and reads nothing more

    _, peer = await asyncio.gather(client.ready(server.nodeId), serve())
    [connection] = client._conns.values()
    transport = connection._writer.transport
    with contextlib.suppress(RequestTimedOutError):
        await client.send(server.nodeId, ProduceRequest(None, -1, 1000, [("topic", [(0, bytes(SIZE))])]))
        sys.exit("the request was answered")
    if resets:
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
        transport.abort()
    total = 0
    with peer, listening, contextlib.suppress(ConnectionResetError):
        while chunk := await loop.sock_recv(peer, 1 << 20):
            total += len(chunk)
    return total

async def main() -> bool:
    closed, cut = await look(resets=False), await look(resets=True)
    print(f"a request of {SIZE} bytes timed out; read afterwards: {closed} bytes, with a reset {cut}")
    return closed > SIZE > 2 * cut

sys.exit(0 if asyncio.run(main()) else 1)
PY
"$folder/venv/bin/python" "$folder/see.py" || { echo "CHANGED: what has timed out is not sent any more"; exit 1; }
echo "As found: a request that has timed out is still sent."
