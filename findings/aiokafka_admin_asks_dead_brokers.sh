#!/usr/bin/env bash
# aiokafka's admin client after one of two brokers has died.
#
# Guess:  a question that any broker can answer, such as list_topics(), goes to one that can be reached. The client notices
#         the broken connection, and the other broker is up.
# Truth:  each call goes to a broker chosen at random among those of the metadata that the client has seen last. Where that
#         one is dead, the call raises NodeNotReadyError, and no other broker is tried: about half of the calls fail until
#         Kafka has removed the dead broker (nine seconds by default) and the client has asked for the metadata anew.
# Seen with: aiokafka 0.14.0, Apache Kafka 4.1.2 (two nodes, KRaft, Java 17), Python 3.11. Needs java and mvn.
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
import asyncio, collections, contextlib, logging, pathlib, socket, subprocess, sys
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # it cannot connect before the server listens

FOLDER = pathlib.Path(sys.argv[1])
PORTS = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
ONE, TWO, CONTROLLER = (f"127.0.0.1:{port.getsockname()[1]}" for port in PORTS)
NODES = {
    1: {"process.roles": "broker,controller", "listeners": f"PLAINTEXT://{ONE},CONTROLLER://{CONTROLLER}"},
    2: {"process.roles": "broker", "listeners": f"PLAINTEXT://{TWO}"},
}

@contextlib.contextmanager
def kafka(node: int):
    properties = NODES[node] | {
        "node.id": node,
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "controller.quorum.voters": f"1@{CONTROLLER}",
        "log.dirs": FOLDER / f"data{node}",
    }
    file = FOLDER / f"server{node}.properties"
    file.write_text("".join(f"{name}={value}\n" for name, value in properties.items()))
    java = ["java", "-XX:+UseSerialGC", "-Xmx256m", "-cp", f"{FOLDER}/jars/*"]
    with (FOLDER / f"kafka{node}.log").open("w") as log:
        tool = [*java, "kafka.tools.StorageTool", "format", "--cluster-id", "A" * 22, "--config", file]
        subprocess.run(tool, cwd=FOLDER, stdout=log, stderr=log, check=True)
        server = subprocess.Popen([*java, "kafka.Kafka", file], cwd=FOLDER, stdout=log, stderr=log)
    try:
        yield server
    finally:
        server.kill()
        server.wait()

async def brokers() -> set[int]:
    admin = AIOKafkaAdminClient(bootstrap_servers=ONE)
    try:
        await admin.start()
        return {broker["node_id"] for broker in (await admin.describe_cluster())["brokers"]}
    except KafkaError:
        return set()
    finally:
        await admin.close()

async def until_there_are(nodes: set[int]) -> None:
    async with asyncio.timeout(120):
        while await brokers() != nodes:
            await asyncio.sleep(0.3)

async def outcomes(admin: AIOKafkaAdminClient) -> collections.Counter[str]:
    seen = collections.Counter()
    for _ in range(40):
        try:
            await admin.list_topics()
            seen["answered"] += 1
        except Exception as error:
            seen[type(error).__name__] += 1
    return seen

async def main(two: subprocess.Popen) -> bool:
    await until_there_are({1, 2})
    admin = AIOKafkaAdminClient(bootstrap_servers=f"{ONE},{TWO}")
    await admin.start()
    both = await outcomes(admin)
    two.kill()
    two.wait()
    dead = await outcomes(admin)
    await until_there_are({1})
    async with asyncio.timeout(120):
        while set(removed := await outcomes(admin)) != {"answered"}:
            await asyncio.sleep(0.3)
    await admin.close()
    print(f"both brokers are up:     {dict(both)}")
    print(f"one is dead:             {dict(dead)}")
    print(f"Kafka has removed it:    {dict(removed)}")
    return set(both) == {"answered"} and {"answered", "NodeNotReadyError"} <= set(dead)

for port in PORTS:
    port.close()
with kafka(1), kafka(2) as two:
    as_found = asyncio.run(main(two))
sys.exit(0 if as_found else 1)
PY
"$folder/venv/bin/python" "$folder/see.py" "$folder" || { echo "CHANGED: the admin client asks another broker now"; exit 1; }
echo "As found: the admin client asks brokers that are dead."
