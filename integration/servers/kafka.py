"""A real Apache Kafka (KRaft, one node) for the session.

`OUTBOX_KAFKA_BOOTSTRAP` names servers to use; without it one is started, in a container (see `container`) or from Maven
Central's jars in a temporary folder, which needs Java 17 or newer, and Maven the first time.
"""

import os
import secrets
import shutil
import signal
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from .container import ServerContainer, container_image
from .jars import kafka_jars
from .process import LOOPBACK, ReservedPort, ServerProcess, ServerUnavailable, listens, run, run_program
from .topics import create_topic, delete_topic
from .versions import note

ENVIRONMENT = "OUTBOX_KAFKA_BOOTSTRAP"

# A short-lived Java program is not worth optimising; the server is.
START_QUICKLY = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
HEAP = ["-XX:+UseSerialGC", "-Xmx512m"]

# Everything that can reach a client (limits, acknowledgements, timestamps) keeps Kafka's default. Changed are: one node
# means one replica; a topic that a test did not create is an error; and what makes a start or a first consumer slow.
SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "DIRECT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "inter.broker.listener.name": "DIRECT",
    "auto.create.topics.enable": "false",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "group.initial.rebalance.delay.ms": "0",
    # After `kill -9` the same node may come back only when this time has passed (9 s by default).
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    "log.segment.bytes": str(64 * 1024 * 1024),
    "log.index.size.max.bytes": str(1024 * 1024),
    "log.cleaner.dedupe.buffer.size": str(4 * 1024 * 1024),
}


class KafkaServer:
    """A Kafka that tests create their topics on.

    Args:
        bootstrap: "host:port", or several separated by commas.
    """

    replicas: ClassVar[int] = 1
    """Of each partition."""

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap

    @contextmanager
    def topic(self, partitions: int = 6, **config: str) -> Iterator[str]:
        """A fresh topic, deleted afterwards; yields its name.

        A topic's settings are given with underscores: `server.topic(1, max_message_bytes="2000")`.
        """
        name = f"test-{secrets.token_hex(6)}"
        settings = {key.replace("_", "."): value for key, value in config.items()}
        run(create_topic(self.bootstrap, name, partitions, settings, replicas=self.replicas))
        try:
            yield name
        finally:
            run(delete_topic(self.bootstrap, name))


class OwnKafka(KafkaServer):
    """A Kafka of our own, for tests to stop; keeps its ports and its data through `stop` and `start`.

    A Kafka client asks the bootstrap server for the brokers' addresses and goes there, around any proxy it was pointed
    at. So this server has a second listener on `proxied_port`, which tells its clients to come back to `proxy_port`:
    start a proxy there that forwards to `proxied_port`, and a client that starts from it stays behind it.

    Args:
        settings: server.properties beside `SETTINGS`.
    """

    process: ServerProcess | ServerContainer

    def __init__(self, settings: Mapping[str, str]) -> None:
        self._settings = SETTINGS | settings
        self._ports = [ReservedPort() for _ in range(4)]
        self._direct, self.proxied_port, self.proxy_port, self._controller = (port.number for port in self._ports)
        super().__init__(f"{LOOPBACK}:{self._direct}")

    def _properties(self, host: str) -> dict[str, str]:
        """server.properties of a server that listens on `host`, or everywhere if it is empty."""
        return self._settings | {
            "listeners": f"DIRECT://{host}:{self._direct},PROXIED://{host}:{self.proxied_port},"
            f"CONTROLLER://{LOOPBACK}:{self._controller}",
            "advertised.listeners": f"DIRECT://{self.bootstrap},PROXIED://{LOOPBACK}:{self.proxy_port}",
            "controller.quorum.voters": f"1@{LOOPBACK}:{self._controller}",
        }

    def start(self) -> None:
        """Start, or start again after `stop` or `process.kill`; returns when the server answers."""
        self.process.start(lambda: listens(self._direct) and run(self._answers()), timeout=90)

    def stop(self) -> None:
        """Stop cleanly: the clients are disconnected and refused until the next `start`."""
        self.process.stop(signal.SIGTERM)

    def close(self) -> None:
        """Stop for good."""
        self.process.close()
        for port in self._ports:
            port.release()

    async def _answers(self) -> bool:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap, request_timeout_ms=2000)
        try:
            await admin.start()
            await admin.list_topics()
        except KafkaError:
            return False
        finally:
            await admin.close()
        return True


class EmbeddedKafka(OwnKafka):
    """A Kafka process.

    Args:
        folder: an existing empty folder for everything the server writes.
        settings: server.properties beside `SETTINGS`.
    """

    def __init__(self, folder: Path, settings: Mapping[str, str]) -> None:
        super().__init__(settings)
        # A cluster id is any 22 characters of URL-safe base64; hexadecimal ones cannot begin with a hyphen.
        self._cluster = secrets.token_hex(11)
        self._install(folder, self._cluster)

    def _install(self, folder: Path, cluster: str) -> None:
        java, classpath = _java(), str(kafka_jars() / "*")
        properties = self._properties(LOOPBACK) | {"log.dirs": str(folder / "data")}
        file = folder / "server.properties"
        file.write_text("".join(f"{name}={value}\n" for name, value in properties.items()))
        tool = [java, *START_QUICKLY, "-cp", classpath, "kafka.tools.StorageTool"]
        format_storage = [*tool, "format", "--cluster-id", cluster, "--config", str(file)]
        run_program(format_storage, folder)
        self.process = ServerProcess([java, *HEAP, "-cp", classpath, "kafka.Kafka", str(file)], folder)

    @contextmanager
    def second_node(self, folder: Path) -> Iterator["SecondKafka"]:
        """A server that joins this one's cluster, as node 2, and is stopped afterwards."""
        server = SecondKafka(folder, self._settings, self._controller, self._cluster)
        try:
            server.start()
            yield server
        finally:
            server.close()


class SecondKafka(EmbeddedKafka):
    """A server beside another one, which alone is the controller.

    Args:
        folder: an existing empty folder for everything the server writes.
        settings: the other server's.
        controller: the port of the other server at which its controller listens.
        cluster: the id of the other server's cluster.
    """

    def __init__(self, folder: Path, settings: Mapping[str, str], controller: int, cluster: str) -> None:
        OwnKafka.__init__(self, settings)
        self._other_controller = controller
        self._install(folder, cluster)

    def _properties(self, host: str) -> dict[str, str]:
        properties = super()._properties(host)
        return properties | {
            "process.roles": "broker",
            "node.id": "2",
            "listeners": properties["listeners"].rpartition(",")[0],
            "controller.quorum.voters": f"1@{LOOPBACK}:{self._other_controller}",
        }


class ContainerKafka(OwnKafka):
    """A Kafka in a container, with the settings of the embedded one.

    It listens on the same ports inside and outside, because it also finds itself by the address that it tells clients.

    Args:
        image: one that makes server.properties of its environment, as `apache/kafka` does.
        settings: server.properties beside `SETTINGS`.
    """

    def __init__(self, image: str, settings: Mapping[str, str]) -> None:
        super().__init__(settings)
        variables = {f"KAFKA_{name.replace('.', '_').upper()}": value for name, value in self._properties("").items()}
        ports = {port: port for port in (self._direct, self.proxied_port)}
        self.process = ServerContainer(image, ports, variables | {"KAFKA_HEAP_OPTS": " ".join(HEAP)})


@contextmanager
def running_kafka() -> Iterator[KafkaServer]:
    """The servers that the environment names, or else one of our own that is stopped afterwards.

    Raises ServerUnavailable when neither can be had.
    """
    if given := os.environ.get(ENVIRONMENT):
        yield KafkaServer(given)
        return
    with running_own_kafka({}) as server:
        yield server


@contextmanager
def running_own_kafka(settings: Mapping[str, str]) -> Iterator[OwnKafka]:
    """A server of our own, whatever the environment names, with settings beside `SETTINGS`.

    Raises ServerUnavailable when there is no image and no program to run.
    """
    with tempfile.TemporaryDirectory(prefix="faststream-outbox-kafka-") as folder:
        image = container_image("KAFKA_IMAGE")
        server = ContainerKafka(image, settings) if image else EmbeddedKafka(Path(folder), settings)
        try:
            server.start()
            note("Kafka", image or kafka_jars().name.removeprefix("kafka-"))
            yield server
        finally:
            server.close()


def _java() -> str:
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=f"{home}/bin" if home else None)
    if java is None:
        raise ServerUnavailable(f"Apache Kafka: set {ENVIRONMENT}, or install Java 17 and Maven")
    return java
