#!/usr/bin/env bash
# A handler with a publisher above it that returns nothing.
#
# Guess:  no result, no message: a handler that returns None (or has no return at all) decides that there is nothing to send.
# Truth:  FastStream publishes a message all the same: its body is empty, and so is its content type.
# Seen with: FastStream 0.7.8 with aiokafka 0.14.0, on the mock cluster of confluent-kafka 2.16.1; Python 3.11.
set -euo pipefail
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    "faststream[kafka]==0.7.8" aiokafka==0.14.0 confluent-kafka==2.16.1
cat >"$folder/see.py" <<'PY'
import asyncio, sys
from confluent_kafka import Producer
from faststream.kafka import KafkaBroker, KafkaMessage

async def main(bootstrap: str) -> bool:
    broker = KafkaBroker(bootstrap, logger=None)
    seen: asyncio.Queue[tuple[bytes, str | None]] = asyncio.Queue()

    @broker.subscriber("numbers", auto_offset_reset="earliest")
    @broker.publisher("halves")
    async def halve(number: int) -> int | None:
        return number // 2 if number % 2 == 0 else None

    @broker.subscriber("halves", auto_offset_reset="earliest")
    async def see(message: KafkaMessage) -> None:
        await seen.put((message.raw_message.value, message.content_type))

    async with broker, asyncio.timeout(60):
        await broker.start()
        halves = []
        for number in (8, 7, 6):
            await broker.publish(number, "numbers")
            halves.append(await seen.get())
            print(f"{number}: the publisher has sent {halves[-1]}")
    return [value for value, _ in halves] == [b"4", b"", b"3"] and not halves[1][1]

owner = Producer({"bootstrap.servers": "mock", "test.mock.num.brokers": 1})
(node,) = owner.list_topics(timeout=10).brokers.values()
sys.exit(0 if asyncio.run(main(f"{node.host}:{node.port}")) else 1)
PY
"$folder/venv/bin/python" "$folder/see.py" || { echo "CHANGED: a result of None sends another message now, or none"; exit 1; }
echo "As found: a handler that returns None sends an empty message."
