"""What a lane knows of a Kafka cluster and asks it: where partitions are, and produce requests that are tried once."""

import asyncio
import contextlib
import math
import time
from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Any

from aiokafka.client import AIOKafkaClient
from aiokafka.cluster import ClusterMetadata
from aiokafka.errors import KafkaError, NodeNotReadyError, RequestTimedOutError
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.protocol.offset import OffsetRequest
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.structs import TopicPartition

from faststream_outbox.forwarders.kafka.answers import OF_A_TOPIC
from faststream_outbox.forwarders.kafka.client_log import keep_lines_out_of_the_log
from faststream_outbox.forwarders.kafka.lender import Lender, close, drop, drop_given_up, transports_to
from faststream_outbox.forwarders.kafka.settings import KafkaSettings
from faststream_outbox.forwarders.kafka.verdicts import KafkaAnswerError, NotSentError
from faststream_outbox.forwarders.socket_reset import reset
from faststream_outbox.forwarders.suspects import ConnectionBrokenError

REACH_SECONDS = 2.0
SERVER_SECONDS = 5.0
"""For one server of several to be connected to, or to tell where partitions are.

Where packets are dropped, connecting takes the whole time-out of a request, 40 s by default, and an attempt of a lane
has no more than 45 s. A server that lives answers in milliseconds; one that does not in this time is no help just now.
"""
ALL_REPLICAS = -1
LATEST = -1
"""The timestamp that stands for the end of a log: Kafka protocol guide, "ListOffsets API"."""

UNKNOWN_TOPIC_OR_PARTITION = 3
LEADER_NOT_AVAILABLE = 5


class LeaderUnreachableError(ConnectionError):
    """There is no connection to the leader of a partition: what was to be sent to it has not left this machine."""


class KafkaClient:
    """Knows one topic, and others that rows name, and produces to them. After ``close`` nothing more is sent.

    It uses aiokafka's connections and protocol, and nothing of aiokafka that runs in the background: each step can be
    cancelled, and leaves nothing open then that ``close`` does not know.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self._topic = settings.topic
        self._timeout_ms = int(settings.request_timeout * 1000)
        self._max_age = settings.metadata_max_age
        self._refreshed_at = -math.inf
        self._problems: dict[str, KafkaAnswerError] = {}
        self.broken_nodes: set[int] = set()
        """Servers to which a connection broke while a batch was on its way."""
        self._slow: set[int] = set()
        """Servers that have not answered when they were asked last: others are asked first."""
        self._doubtful: set[str] = set()
        """Topics that have turned out to be missing since they were looked up."""
        self._last_line = keep_lines_out_of_the_log()
        # Where aiokafka's own bootstrap would begin, which forgets its connection when it is cancelled.
        servers = settings.client_options["bootstrap_servers"]
        self._cluster = ClusterMetadata(bootstrap_servers=servers)  # type: ignore[no-untyped-call]
        self._lender = Lender.to(settings.client_options)
        self._borrowed: AIOKafkaClient | None = None
        self._is_new = False
        self._is_closed = False

    @property
    def is_alive(self) -> bool:
        """True: it opens each of its connections when it needs it."""
        return True

    @property
    def is_fresh(self) -> bool:
        """Whether it is known where the topic's partitions are, and was asked for not too long ago."""
        return time.monotonic() - self._refreshed_at < self._max_age

    async def refresh(self) -> None:
        """Connect if need be, and ask where the partitions are of the topic, and of others that are known.

        Raises:
            KafkaAnswerError: There is no such topic (yet), or the user may not see it.
            ConnectionError: No server answers.
        """
        # Here no rows are in hand.
        async with self._lender.look():
            await self._locate({self._topic, *self._cluster.topics()})  # type: ignore[no-untyped-call]
        if (problem := self._problems.get(self._topic)) is not None:
            raise problem
        self._refreshed_at = time.monotonic()

    async def look_up(self, topics: Collection[str]) -> Mapping[str, KafkaAnswerError]:
        """Ask where the partitions of other topics are, unless it is known.

        Returns:
            Why there are none, for topics without.

        Raises:
            ConnectionError: No server answers.
        """
        known: set[str] = self._cluster.topics() - self._doubtful  # type: ignore[no-untyped-call]
        if not known.issuperset(topics):
            await self._locate({self._topic, *known, *topics})
        return {topic: self._problems[topic] for topic in topics if topic in self._problems}

    def doubt(self, topic: str) -> None:
        """Note that what is known of a topic may be old, so that it is looked up again."""
        self._doubtful.add(topic)

    async def _locate(self, topics: Collection[str]) -> None:
        answer = await self._ask(MetadataRequest(list(topics)))
        self._cluster.update_metadata(answer)  # type: ignore[no-untyped-call]
        drop(self._client, self._is_elsewhere)
        self._doubtful.clear()
        codes = {topic: code for code, topic, *_ in answer.topics}
        self._problems = {
            topic: KafkaAnswerError(codes.get(topic) or UNKNOWN_TOPIC_OR_PARTITION, f"topic {topic!r}")
            for topic in topics
            if not self.partitions(topic)
        }

    async def _ask(self, request: Any) -> Any:
        """Ask any server of the cluster."""
        problem: Exception | None = None
        # In another order for each client: aiokafka has shuffled those that it is to start from.
        servers = list(self._cluster.brokers())  # type: ignore[no-untyped-call]
        servers.sort(key=lambda server: server.nodeId in self._slow)
        for server in servers:
            # The last one may be slow: there is no other to go on with.
            seconds = None if server is servers[-1] else SERVER_SECONDS
            try:
                async with asyncio.timeout(seconds):
                    answer = await self._question(server.nodeId, request)
            except (KafkaError, TimeoutError) as error:
                problem = error
                self._slow.add(server.nodeId)
            else:
                self._slow.discard(server.nodeId)
                return answer
        # What aiokafka raises does not tell why it could not connect; what it would have logged does.
        msg = f"no server of the cluster answers: {self._last_line[-1] if self._last_line else problem}"
        raise ConnectionError(msg) from problem

    async def _question(self, server: int | str, request: Any) -> Any:
        """Ask a server; what is asked later does not have to wait for the answer to a question that was given up."""
        try:
            return await self._client.send(server, request)  # type: ignore[no-untyped-call]
        except asyncio.CancelledError:
            if self._borrowed is not None:
                drop_given_up(self._borrowed)
            raise

    def partitions(self, topic: str) -> list[int]:
        """Return all partitions of a topic, in order."""
        return sorted(self._cluster.partitions_for_topic(topic) or ())

    def available_partitions(self, topic: str) -> list[int]:
        """Return the partitions of a topic that have a leader now, in order."""
        return sorted(self._cluster.available_partitions_for_topic(topic) or ())  # type: ignore[no-untyped-call]

    async def lost(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, ConnectionError]:
        """Connect to the leaders of partitions, and tell of which ones the leader cannot be connected to.

        aiokafka connects to one server at a time: a dead one would keep rows from all others for its whole time-out.
        """
        leaders = {partition: self.leader(partition) for partition in partitions}
        lost: set[int] = set()
        if len(nodes := {*leaders.values()} - {None}) > 1:
            lost = {node for node in nodes if node is not None and not await self.reaches(node, SERVER_SECONDS)}
        return {
            each: ConnectionError(f"partition {each.partition} of {each.topic!r}: no way to server {leader}")
            for each, leader in leaders.items()
            if leader in lost
        }

    def leader(self, partition: TopicPartition) -> int | None:
        """Return the server that leads a partition, as far as is known; None if there is none."""
        leader: int | None = self._cluster.leader_for_partition(partition)  # type: ignore[no-untyped-call]
        return None if leader is None or leader < 0 else leader

    async def produce(self, topic: str, partition: int, batch: bytes) -> int:
        """Send a record batch, and return its offset when all in-sync replicas have it.

        Raises:
            KafkaAnswerError: Kafka did not take the batch.
            Exception: It is not known whether Kafka has it.
        """
        about = f"partition {partition} of {topic!r}"
        leader = self.leader(TopicPartition(topic, partition))
        if leader is None:
            raise NotSentError(LEADER_NOT_AVAILABLE, about)
        request = ProduceRequest(None, ALL_REPLICAS, self._timeout_ms, [(topic, [(partition, batch)])])
        try:
            response = await self._send_or_reset(leader, request)
        except RequestTimedOutError as error:
            msg = f"{about}: no answer in {self._timeout_ms / 1000:g} s"
            raise TimeoutError(msg) from error
        except NodeNotReadyError as error:
            # aiokafka has many names for a connection that is not there; one keeps the log to one line.
            msg = f"{about}: {error}"
            raise LeaderUnreachableError(msg) from error
        except KafkaError as error:
            self.broken_nodes.add(leader)
            msg = f"{about}: {error}"
            raise ConnectionBrokenError(msg) from error
        [(_, [(_, code, offset, *_)])] = response.topics
        if code in OF_A_TOPIC:
            self._doubtful.add(topic)
        if code:
            raise KafkaAnswerError(code, about)
        return int(offset)

    async def _send_or_reset(self, leader: int, request: Any) -> Any:
        """Send a request whose bytes do not leave this machine any more once it has failed."""
        client = self._client
        if not await client.ready(leader):  # type: ignore[no-untyped-call]
            msg = f"no way to server {leader}"
            raise NodeNotReadyError(msg)
        transports = transports_to(client, leader)
        try:
            return await client.send(leader, request)  # type: ignore[no-untyped-call]
        except KafkaError:
            # Without an answer in time aiokafka closes the connection, and a closed one sends on what is buffered. To a
            # server that is reached again later, this batch would come behind those that were sent since.
            for transport in transports:
                reset(transport)
            raise

    async def ask_any(self, request: Any) -> Any:
        """Ask any server of the cluster, and return what it answers.

        Raises:
            ConnectionError: None does.
        """
        return await self._ask(request)

    async def ask_leader(self, leader: int, request: Any) -> Any:
        """Ask one server, and return what it answers.

        Raises:
            Exception: It does not.
        """
        try:
            return await self._question(leader, request)
        except NodeNotReadyError as error:
            msg = f"server {leader}: {error}"
            raise LeaderUnreachableError(msg) from error
        except KafkaError as error:
            msg = f"server {leader}: {error!r}"
            raise ConnectionError(msg) from error

    def leader_of(self, topic: str, partition: int) -> int:
        """Return the server that leads a partition.

        Raises:
            KafkaAnswerError: There is none now.
        """
        leader = self.leader(TopicPartition(topic, partition))
        if leader is None:
            raise NotSentError(LEADER_NOT_AVAILABLE, f"partition {partition} of {topic!r}")
        return leader

    def by_leader(self, partitions: Collection[TopicPartition]) -> Mapping[int, Collection[TopicPartition]]:
        """Return those of the partitions that have a leader, by the server that leads them."""
        leaders: defaultdict[int, list[TopicPartition]] = defaultdict(list)
        for partition in partitions:
            if (leader := self.leader(partition)) is not None:
                leaders[leader].append(partition)
        return leaders

    async def codes(self, server: int, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Ask a server a question about partitions; return its error codes, 0 for none. Empty: it does not answer."""
        if await self.reaches(server):
            wanted = [(topic, [(partition, LATEST)]) for topic, partition in partitions]
            with contextlib.suppress(Exception):
                async with asyncio.timeout(REACH_SECONDS):
                    answer = await self.ask_leader(server, OffsetRequest(-1, 0, wanted))
                return {TopicPartition(topic, number): code for topic, led in answer.topics for number, code, *_ in led}
        return {}

    def cut(self, partition: TopicPartition) -> None:
        """Reset the connection to the leader of a partition: what has not left this machine is not sent any more."""
        leader = self.leader(partition)
        drop(self._client, lambda node, _connection: node == leader)

    async def reaches(self, node: int, seconds: float = REACH_SECONDS) -> bool:
        """Return whether a server of the cluster can be connected to, in so many seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                return bool(await self._client.ready(node))  # type: ignore[no-untyped-call]
        return False

    async def reaches_others(self, partition: TopicPartition) -> bool:
        """Return whether a server can be connected to that does not lead this partition."""
        servers = self._cluster.brokers()  # type: ignore[no-untyped-call]
        others = {server.nodeId for server in servers} - {self.leader(partition)}
        return any([await self.reaches(node) for node in others])

    @property
    def _client(self) -> AIOKafkaClient:
        """The connections that are borrowed until ``give_back``."""
        return self._borrowed or self.borrow()

    def borrow(self, *, anew: bool = False) -> AIOKafkaClient:
        """Borrow connections while none are borrowed; with ``anew``, such as have to be opened.

        Raises:
            ConnectionError: It is closed.
        """
        if self._is_closed:
            msg = "this lane has left the cluster"
            raise ConnectionError(msg)
        self._borrowed = self._lender.lend(anew=anew)
        self._is_new = anew
        # Where servers and partitions are, each borrower knows itself.
        self._borrowed.cluster = self._cluster
        drop(self._borrowed, self._is_elsewhere)
        return self._borrowed

    def _is_elsewhere(self, node: int | str, connection: Any) -> bool:
        """Return whether a connection of an earlier borrower leads to another server than what this one calls so.

        Servers move. And aiokafka shuffles those that it is to start from for each borrower, and then numbers them.
        """
        known = self._cluster.broker_metadata(node)  # type: ignore[no-untyped-call]
        return known is not None and (known.host, known.port) != (connection.host, connection.port)

    def give_back(self) -> None:
        """Lend the connections to others: all that was sent has an answer."""
        if self._borrowed is not None:
            borrowed, self._borrowed = self._borrowed, None
            self._lender.take_back(borrowed)

    async def close(self) -> None:
        """Reset the connections that are borrowed. What has not left this machine is not sent any more."""
        if self._is_closed:
            return
        self._is_closed = True
        borrowed, self._borrowed = self._borrowed, None
        try:
            if borrowed is not None:
                await close(borrowed)
                if not self._is_new:
                    # The others may be as bad.
                    await self._lender.close_idle()
        finally:
            # Also when a stop has no time left: the last one who leaves closes what nobody will borrow any more.
            await self._lender.leave()
