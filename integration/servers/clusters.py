"""Servers of three nodes each, to be killed one by one: RabbitMQ, Kafka, and Redis with Sentinels. Always programs."""

import secrets
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from redis.asyncio.sentinel import Sentinel

from .kafka import EmbeddedKafka, KafkaServer, OwnKafka
from .process import LOOPBACK
from .rabbitmq import EmbeddedRabbit
from .redis import EmbeddedRedis, EmbeddedSentinel

NODES = 3
REPLICATED = {
    "offsets.topic.replication.factor": "3",
    "transaction.state.log.replication.factor": "3",
    "transaction.state.log.min.isr": "2",
    "min.insync.replicas": "2",
}
"""What people set where there are three servers, and nothing that was acknowledged may be lost with one."""


def at_once(actions: Iterable[Callable[[], Any]]) -> None:
    """Do all of it at the same time: nodes of a cluster wait for one another when they start."""
    with ThreadPoolExecutor() as executor:
        for future in [executor.submit(action) for action in actions]:
            future.result()


class RabbitCluster:
    """Three RabbitMQ nodes.

    Args:
        folder: an existing empty folder for everything the servers write.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.nodes: list[EmbeddedRabbit] = []

    def start(self) -> None:
        for name in ("first", "second", "third"):
            (home := self._folder / name).mkdir()
            # One after the other: a node joins the cluster of the first one, and has its cookie.
            node = EmbeddedRabbit(home, self.nodes[0] if self.nodes else None, name)
            self.nodes.append(node)
            node.start()

    def part(self, node: EmbeddedRabbit) -> None:
        """Cut a node off from the others, while clients reach all of them; `join` ends it."""
        for other in self.nodes:
            if other is not node:
                # With another cookie neither lets the other in again.
                node.evaluate(f"erlang:set_cookie('{other.node}', parted), erlang:disconnect_node('{other.node}')")

    def join(self, node: EmbeddedRabbit) -> None:
        for other in self.nodes:
            if other is not node:
                node.evaluate(
                    f"erlang:set_cookie('{other.node}', erlang:get_cookie()), net_kernel:connect_node('{other.node}')"
                )

    def close(self) -> None:
        for node in reversed(self.nodes):
            # A node that is stopped cleanly waits for others that are gone.
            node.process.kill()
            node.close()


class KafkaNode(EmbeddedKafka):
    """One of several servers that are brokers and controllers both.

    Args:
        folder: an existing empty folder for everything the server writes.
        number: its id, from 1 on.
    """

    def __init__(self, folder: Path, number: int) -> None:
        OwnKafka.__init__(self, REPLICATED)
        self._folder = folder
        self._number = number
        self._voters = ""

    @property
    def voter(self) -> str:
        return f"{self._number}@{LOOPBACK}:{self._controller}"

    def install(self, cluster: str, voters: Iterable[str]) -> None:
        """Make its data folder, once all of them are known."""
        self._voters = ",".join(voters)
        self._install(self._folder, cluster)

    def _properties(self, host: str) -> dict[str, str]:
        its_own = {"node.id": str(self._number), "controller.quorum.voters": self._voters}
        return super()._properties(host) | its_own


class KafkaCluster(KafkaServer):
    """Three Kafka servers; what is written is on two of them at least when it is acknowledged.

    Args:
        folder: an existing empty folder for everything the servers write.
    """

    replicas = NODES

    def __init__(self, folder: Path) -> None:
        self.nodes: list[KafkaNode] = []
        for number in range(1, NODES + 1):
            (home := folder / f"node-{number}").mkdir()
            self.nodes.append(KafkaNode(home, number))
        cluster = secrets.token_hex(11)
        at_once([lambda node=node: node.install(cluster, [each.voter for each in self.nodes]) for node in self.nodes])
        super().__init__(",".join(node.bootstrap for node in self.nodes))

    def start(self) -> None:
        at_once([node.start for node in self.nodes])

    def close(self) -> None:
        for node in self.nodes:
            node.process.kill()
            node.close()


class RedisWatched:
    """A Redis with two replicas, and three Sentinels that put a replica in its place when two of them miss it.

    Args:
        folder: an existing empty folder for everything the servers write.
        name: what the Sentinels call it.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._name = name
        self._folders = iter(folder / f"{number}" for number in range(2 * NODES))
        self._stack = ExitStack()
        self.servers: list[EmbeddedRedis] = []
        self.sentinels: list[EmbeddedSentinel] = []

    def start(self) -> None:
        primary = self._add(EmbeddedRedis(self._folder()))
        self.servers = [primary]
        for _ in range(1, NODES):
            following = f"{LOOPBACK} {primary.port.number}"
            self.servers.append(self._add(EmbeddedRedis(self._folder(), replicaof=following)))
        for _ in range(NODES):
            sentinel = EmbeddedSentinel(self._folder(), self._name, primary, quorum=2)
            self.sentinels.append(self._stack.enter_context(sentinel))

    @property
    def url(self) -> str:
        """Of the Sentinels."""
        return ",".join(f"{LOOPBACK}:{sentinel.port.number}" for sentinel in self.sentinels)

    async def primary(self) -> EmbeddedRedis:
        """The server that most Sentinels name."""
        sentinels = Sentinel([(LOOPBACK, each.port.number) for each in self.sentinels], socket_timeout=1.0)
        try:
            _, port = await sentinels.discover_master(self._name)
        finally:
            for client in sentinels.sentinels:
                await client.aclose()
        return next(server for server in self.servers if server.port.number == port)

    def close(self) -> None:
        self._stack.close()

    def _add(self, server: EmbeddedRedis) -> EmbeddedRedis:
        return self._stack.enter_context(server)

    def _folder(self) -> Path:
        folder = next(self._folders)
        folder.mkdir()
        return folder
