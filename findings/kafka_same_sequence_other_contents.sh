#!/usr/bin/env bash
# Two batches with one producer id, one epoch and one sequence, but with different records.
#
# Guess:  an idempotent producer hears success only for records that are in the log. A second batch that claims the same
#         sequence numbers for other records is refused, and its sender learns that something is wrong.
# Truth:  the partition compares the producer id, the epoch and the range of sequence numbers, never the contents. The
#         second batch is answered with code 0 and the offset of the first one, and its records are in no log. So a copy of a
#         producer that has gone on from the same state (a paused process, a state that was read back) takes the other's
#         records for its own. Only a batch of another size is refused: 45, OUT_OF_ORDER_SEQUENCE_NUMBER.
# Seen with: Apache Kafka 4.1.2 (one node, KRaft, Java 17), aiokafka 0.14.0, Python 3.11. Needs java and mvn.
set -euo pipefail
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check aiokafka==0.14.0
cat >"$folder/pom.xml" <<'XML'
<project>
  <modelVersion>4.0.0</modelVersion>
  <groupId>findings</groupId><artifactId>kafka</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>4.1.2</version></dependency>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
  </dependencies>
</project>
XML
mvn -B -q -f "$folder/pom.xml" org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies \
    -DoutputDirectory="$folder/jars" >"$folder/mvn.log" || { cat "$folder/mvn.log"; exit 2; }
cat >"$folder/see.py" <<'PY'
import asyncio, contextlib, logging, pathlib, socket, subprocess, sys
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.protocol.transaction import InitProducerIdRequest
from aiokafka.record.default_records import DefaultRecordBatchBuilder

logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # it cannot connect before the server listens

PORTS = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
BROKER, CONTROLLER = (f"127.0.0.1:{port.getsockname()[1]}" for port in PORTS)
PROPERTIES = {
    "process.roles": "broker,controller",
    "node.id": 1,
    "listeners": f"PLAINTEXT://{BROKER},CONTROLLER://{CONTROLLER}",
    "controller.listener.names": "CONTROLLER",
    "controller.quorum.voters": f"1@{CONTROLLER}",
    "offsets.topic.replication.factor": 1,
}

@contextlib.contextmanager
def kafka(folder: pathlib.Path):
    for port in PORTS:
        port.close()
    lines = [f"{name}={value}\n" for name, value in (PROPERTIES | {"log.dirs": folder / "data"}).items()]
    (folder / "server.properties").write_text("".join(lines))
    java = ["java", "-XX:+UseSerialGC", "-Xmx256m", "-cp", f"{folder}/jars/*"]
    with (folder / "kafka.log").open("w") as log:
        tool = [*java, "kafka.tools.StorageTool", "format", "--cluster-id", "A" * 22, "--config", "server.properties"]
        subprocess.run(tool, cwd=folder, stdout=log, stderr=log, check=True)
        server = subprocess.Popen([*java, "kafka.Kafka", "server.properties"], cwd=folder, stdout=log, stderr=log)
    try:
        yield
    finally:
        server.kill()
        server.wait()

async def until_it_works(attempt):
    async with asyncio.timeout(120):
        while True:
            with contextlib.suppress(KafkaError):
                if (done := await attempt()) is not None:
                    return done
            await asyncio.sleep(0.3)

async def create_topic() -> bool:
    admin = AIOKafkaAdminClient(bootstrap_servers=BROKER)
    try:
        await admin.start()
        await admin.create_topics([NewTopic("t", 1, 1)])
    finally:
        await admin.close()
    return True

async def new_producer(client: AIOKafkaClient) -> tuple[int, int] | None:
    answer = await client.send(1, InitProducerIdRequest(None, 60_000))
    return (answer.producer_id, answer.producer_epoch) if answer.error_code == 0 else None

async def send(client: AIOKafkaClient, producer: tuple[int, int], sequence: int, values: list[bytes]) -> tuple[int, int]:
    builder = DefaultRecordBatchBuilder(
        magic=2, compression_type=0, is_transactional=0, producer_id=producer[0], producer_epoch=producer[1],
        base_sequence=sequence, batch_size=10_000,
    )
    for offset, value in enumerate(values):
        builder.append(offset, None, None, value, [])
    all_replicas = -1
    answer = await client.send(1, ProduceRequest(None, all_replicas, 10_000, [("t", [(0, bytes(builder.build()))])]))
    _, [(_, code, offset, *_)] = answer.topics[0]
    print(f"sequence {sequence}, {values}: code {code}, offset {offset}")
    return code, offset

async def log_of_topic() -> list[bytes]:
    async with AIOKafkaConsumer(bootstrap_servers=BROKER) as consumer:
        part = TopicPartition("t", 0)
        consumer.assign([part])
        await consumer.seek_to_beginning(part)
        end = (await consumer.end_offsets([part]))[part]
        values = []
        while await consumer.position(part) < end:
            values += [record.value for record in (await consumer.getmany(timeout_ms=500)).get(part, [])]
        return values

async def main() -> bool:
    await until_it_works(create_topic)
    client = AIOKafkaClient(bootstrap_servers=BROKER)
    await client.bootstrap()
    producer = await until_it_works(lambda: new_producer(client))
    answers = [
        await send(client, producer, 0, [b"a1", b"a2"]),
        await send(client, producer, 0, [b"b1", b"b2"]),
        await send(client, producer, 0, [b"b1", b"b2", b"b3"]),
        await send(client, producer, 2, [b"c1"]),
        await send(client, producer, 2, [b"d1"]),
    ]
    await client.close()
    log = await log_of_topic()
    print(f"the log: {log}")
    return answers == [(0, 0), (0, 0), (45, -1), (0, 2), (0, 2)] and log == [b"a1", b"a2", b"c1"]

with kafka(pathlib.Path(sys.argv[1])):
    as_found = asyncio.run(main())
sys.exit(0 if as_found else 1)
PY
"$folder/venv/bin/python" "$folder/see.py" "$folder" || { echo "CHANGED: other contents are answered otherwise now"; exit 1; }
echo "As found: other contents under the same sequence numbers are answered with success, and are not in the log."
