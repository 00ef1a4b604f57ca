#!/usr/bin/env bash
# How long a Kafka partition remembers an idempotent producer.
#
# Guess:  for producer.id.expiration.ms (a day by default) after its last batch came in. Within that day a repeated batch
#         is recognised, whatever timestamps its records have.
# Truth:  the day is counted from the timestamp that the client wrote into the records. A producer whose records are two
#         days old (a backlog that keeps the times of its events) is forgotten at the next check, and a repeated batch is
#         appended again. A topic with message.timestamp.type=LogAppendTime remembers it.
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
import asyncio, contextlib, logging, pathlib, socket, subprocess, sys, time
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.protocol.transaction import InitProducerIdRequest
from aiokafka.record.default_records import DefaultRecordBatchBuilder

logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # it cannot connect before the server listens

TYPES = ("CreateTime", "LogAppendTime")
PORTS = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
BROKER, CONTROLLER = (f"127.0.0.1:{port.getsockname()[1]}" for port in PORTS)
PROPERTIES = {
    "process.roles": "broker,controller",
    "node.id": 1,
    "listeners": f"PLAINTEXT://{BROKER},CONTROLLER://{CONTROLLER}",
    "controller.listener.names": "CONTROLLER",
    "controller.quorum.voters": f"1@{CONTROLLER}",
    # Ten minutes by default. The day of producer.id.expiration.ms stays as it is.
    "producer.id.expiration.check.interval.ms": 2000,
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

async def create_topics() -> bool:
    admin = AIOKafkaAdminClient(bootstrap_servers=BROKER)
    try:
        await admin.start()
        await admin.create_topics(
            [NewTopic(type_, 2, 1, topic_configs={"message.timestamp.type": type_}) for type_ in TYPES]
        )
    finally:
        await admin.close()
    return True

async def new_producer(client: AIOKafkaClient) -> tuple[int, int] | None:
    answer = await client.send(1, InitProducerIdRequest(None, 60_000))
    return (answer.producer_id, answer.producer_epoch) if answer.error_code == 0 else None

def batch(producer: tuple[int, int], time_ms: int) -> bytes:
    builder = DefaultRecordBatchBuilder(
        magic=2, compression_type=0, is_transactional=0, producer_id=producer[0], producer_epoch=producer[1],
        base_sequence=0, batch_size=10_000,
    )
    builder.append(0, time_ms, None, b"value", [])
    return bytes(builder.build())

async def send(client: AIOKafkaClient, topic: str, partition: int, records: bytes) -> int:
    all_replicas = -1
    answer = await client.send(1, ProduceRequest(None, all_replicas, 10_000, [(topic, [(partition, records)])]))
    _, [(_, code, offset, *_)] = answer.topics[0]
    assert code == 0, code
    return offset

async def main() -> bool:
    await until_it_works(create_topics)
    client = AIOKafkaClient(bootstrap_servers=BROKER)
    await client.bootstrap()
    producer = await until_it_works(lambda: new_producer(client))
    now = int(time.time() * 1000)
    ages = {"now": now, "two days ago": now - 2 * 24 * 60 * 60 * 1000}
    sent = [(type_, part, batch(producer, ages[age]), age) for type_ in TYPES for part, age in enumerate(ages)]
    offsets = []
    for type_, part, records, _ in sent:
        offsets += [await send(client, type_, part, records), await send(client, type_, part, records)]
    await asyncio.sleep(6)
    later = [await send(client, type_, part, records) for type_, part, records, _ in sent]
    await client.close()
    for (type_, _, _, age), offset in zip(sent, later):
        print(f"{type_:13} records of {age:12}: the batch, sent again 6 s later, has offset {offset}")
    return offsets == [0] * 8 and later == [0, 1, 0, 0]

with kafka(pathlib.Path(sys.argv[1])):
    as_found = asyncio.run(main())
sys.exit(0 if as_found else 1)
PY
"$folder/venv/bin/python" "$folder/see.py" "$folder" || { echo "CHANGED: the timestamps of records do not count now"; exit 1; }
echo "As found: a producer of old records is forgotten at the next check, and its repeated batch is appended."
