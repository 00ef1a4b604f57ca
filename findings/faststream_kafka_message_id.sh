#!/usr/bin/env bash
# The message_id of a message that FastStream has read from Kafka.
#
# Guess:  it identifies the message within its topic, as with other brokers, so a handler may skip an id that it has seen.
# Truth:  it is "offset-timestamp", without the partition. Two messages that are sent to two partitions of one topic in
#         the same millisecond, and have the same offset there, share it.
# Seen with: FastStream 0.7.8 with aiokafka 0.14.0, on the mock cluster of confluent-kafka 2.16.1; Python 3.11.
set -euo pipefail
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    "faststream[kafka]==0.7.8" aiokafka==0.14.0 confluent-kafka==2.16.1
cat >"$folder/see.py" <<'PY'
import asyncio, collections, sys
from confluent_kafka import Producer
from faststream.kafka import KafkaBroker, KafkaMessage

async def main(bootstrap: str) -> bool:
    broker = KafkaBroker(bootstrap, logger=None)
    seen: asyncio.Queue[KafkaMessage] = asyncio.Queue()

    @broker.subscriber("orders", auto_offset_reset="earliest")
    async def see(message: KafkaMessage) -> None:
        await seen.put(message)

    async with broker, asyncio.timeout(60):
        await broker.start()
        await asyncio.gather(*(broker.publish(f"order {n}", "orders", partition=n % 2) for n in range(200)))
        messages = [await seen.get() for _ in range(200)]
    of_id = collections.defaultdict(list)
    for message in messages:
        of_id[message.message_id].append((message.raw_message.partition, message.body))
    shared = {id_: those for id_, those in of_id.items() if len(those) > 1}
    print(f"200 messages, of which {len({message.body for message in messages})} differ, have {len(of_id)} ids")
    for id_, those in list(shared.items())[:3]:
        print(f"{id_}: {those} (partition, body)")
    return bool(shared)

owner = Producer({"bootstrap.servers": "mock", "test.mock.num.brokers": 1})
(node,) = owner.list_topics(timeout=10).brokers.values()
sys.exit(0 if asyncio.run(main(f"{node.host}:{node.port}")) else 1)
PY
"$folder/venv/bin/python" "$folder/see.py" || { echo "CHANGED: message ids of two partitions differ now"; exit 1; }
echo "As found: two messages of one topic have the same message_id."
