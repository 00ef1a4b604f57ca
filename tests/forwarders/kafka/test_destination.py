"""Whether a server of the cluster has ended a connection, or has gone."""

import asyncio
from typing import Any

import pytest

from faststream_outbox._values.outcome import Accepted, Refused, Unsent, Verdict
from faststream_outbox._values.parcel import Parcel
from faststream_outbox.forwarders import outages
from faststream_outbox.forwarders.kafka import destination as module
from faststream_outbox.forwarders.kafka import silence
from faststream_outbox.forwarders.kafka.client import LeaderUnreachableError
from faststream_outbox.forwarders.kafka.destination import KafkaDestination
from faststream_outbox.forwarders.kafka.verdicts import KafkaAnswerError
from faststream_outbox.forwarders.suspects import ConnectionBrokenError, Suspects
from tests.engine.fakes import until
from tests.forwarders.rabbit.rows import Clock

from .rows import row, settings


class Cluster:
    """Partition 0 is on node 7; another node tells where the partitions are."""

    def __init__(self) -> None:
        self.breaks = True
        self.is_node_up = True
        self.flights: list[int] = []


class Client:
    is_alive = is_fresh = True

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.broken_nodes: set[int] = set()

    async def refresh(self) -> None: ...

    async def look_up(self, topics: Any) -> dict[str, Exception]:
        return {}

    def partitions(self, topic: str) -> list[int]:
        return [0]

    available_partitions = partitions

    def leader(self, partition: Any) -> int:
        return 10 + int(partition.partition)

    async def lost(self, partitions: Any) -> dict[Any, ConnectionError]:
        return {}

    async def produce(self, topic: str, partition: int, batch: bytes) -> None:
        self.cluster.flights.append(len(batch))
        if self.cluster.breaks:
            self.broken_nodes.add(7)
            raise ConnectionBrokenError("reset")

    def give_back(self) -> None: ...

    def borrow(self, *, anew: bool) -> None:
        assert anew, "it is to be seen whether the server is there"

    async def reaches(self, node: int) -> bool:
        assert node == 7
        return self.cluster.is_node_up

    async def close(self) -> None: ...


@pytest.mark.parametrize("is_node_up", [False, True])
async def test_a_row_is_accused_only_if_the_very_server_is_there(
    is_node_up: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster, suspects = Cluster(), Suspects()
    cluster.is_node_up = is_node_up
    monkeypatch.setattr(module, "KafkaClient", lambda _settings: Client(cluster))
    destination = KafkaDestination(settings(), suspects, 5.0)
    for _ in range(3):
        await destination.connect()
        [verdict] = await destination.send([Parcel(row(1))])
        assert isinstance(verdict, Unsent)
    await destination.connect()
    assert (suspects.verdict_on(1) is not None) is is_node_up
    cluster.breaks = False
    [verdict] = await destination.send([Parcel(row(1))])
    assert (verdict == Accepted()) is not is_node_up
    assert len(cluster.flights) == (3 if is_node_up else 4)


class Lookups(Client):
    """Counts how often it was asked where the partitions are, and breaks as it is told."""

    def __init__(self) -> None:
        super().__init__(Cluster())
        self.refreshed = 0
        self.closed = 0
        self.is_fresh = True
        self.error: Exception | None = None
        self.missing: dict[str, Exception] = {}

    async def refresh(self) -> None:
        self.refreshed += 1

    async def look_up(self, topics: Any) -> dict[str, Exception]:
        return {topic: self.missing[topic] for topic in topics if topic in self.missing}

    async def produce(self, topic: str, partition: int, batch: bytes) -> None:
        if self.error is not None:
            raise self.error

    async def close(self) -> None:
        self.closed += 1


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Lookups:
    client = Lookups()
    monkeypatch.setattr(module, "KafkaClient", lambda _settings: client)
    return client


async def test_where_the_partitions_are_is_asked_again_after_a_while(client: Lookups) -> None:
    destination = KafkaDestination(settings(), Suspects(), 5.0)
    await destination.connect()
    await destination.connect()
    assert client.refreshed == 1
    client.is_fresh = False
    await destination.connect()
    assert client.refreshed == 2


@pytest.mark.parametrize(
    ("error", "is_kept"), [(KafkaAnswerError(6, "moved"), True), (TimeoutError("no answer"), False)]
)
async def test_a_connection_is_kept_only_if_all_that_was_sent_on_it_has_an_answer(
    client: Lookups, error: Exception, is_kept: bool
) -> None:
    destination = KafkaDestination(settings(), Suspects(), 5.0)
    await destination.connect()
    client.error = error
    await destination.send([Parcel(row(1))])
    assert client.closed == (0 if is_kept else 1)


@pytest.mark.parametrize(("topic", "expected"), [("topic", Unsent), ("elsewhere", Refused)])
async def test_a_missing_topic_is_an_outage_unless_the_row_has_named_it(
    client: Lookups, topic: str, expected: type[Any]
) -> None:
    destination = KafkaDestination(settings(), Suspects(), 5.0)
    await destination.connect()
    client.missing = {topic: KafkaAnswerError(3, topic)}
    [verdict] = await destination.send([Parcel(row(1), None if topic == "topic" else topic)])
    assert isinstance(verdict, expected)


# A partition is down


class Parted(Client):
    """A topic of three partitions, each of which does as it is told."""

    def __init__(self) -> None:
        super().__init__(Cluster())
        self.errors: dict[int, Exception] = {}
        self.led = [0, 1, 2]
        self.unreachable: set[int] = set()
        self.has_others = True
        self.refreshed = 0
        self.sent: list[int] = []
        self.looked_for: list[int] = []
        """Partitions whose leader was to be reached."""

    async def refresh(self) -> None:
        self.refreshed += 1

    def partitions(self, topic: str) -> list[int]:
        return [0, 1, 2]

    def available_partitions(self, topic: str) -> list[int]:
        return self.led

    async def lost(self, partitions: Any) -> dict[Any, ConnectionError]:
        self.looked_for += sorted(each.partition for each in partitions)
        return {each: ConnectionError("no way") for each in partitions if each.partition in self.unreachable}

    async def produce(self, topic: str, partition: int, batch: bytes) -> None:
        self.sent.append(partition)
        if (error := self.errors.get(partition)) is not None:
            raise error

    async def reaches_others(self, partition: Any) -> bool:
        return self.has_others


KEYS = {0: "key-1", 1: "key-0", 2: "key-2"}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(outages, "time", clock)
    monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
async def parted(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> Parted:
    client = Parted()
    monkeypatch.setattr(module, "KafkaClient", lambda _settings: client)
    return client


async def handed_over(
    destination: KafkaDestination, *keys: str | None, partition: int | None = None
) -> dict[int, Verdict]:
    await destination.connect()
    parcels = [Parcel(row(number, key=key)) for number, key in enumerate(keys)]
    return dict(enumerate(await destination.send(parcels)))


def part_of(verdict: Verdict) -> str | None:
    assert isinstance(verdict, Unsent)
    assert verdict.exception is not None
    return verdict.part


DOWN = [(KafkaAnswerError(code, "partition 1"), True) for code in (5, 6, 7, 9, 19, 20, 56, 74, 75)] + [
    (LeaderUnreachableError("no way"), True),
    (KafkaAnswerError(29, "not permitted"), False),
    (ConnectionBrokenError("reset"), False),
    (TimeoutError("no answer"), False),
]


@pytest.mark.parametrize(("error", "is_of_a_partition"), DOWN, ids=repr)
async def test_of_a_partition_that_is_down_only_its_own_rows_are_kept_back(
    error: Exception, is_of_a_partition: bool, parted: Parted
) -> None:
    destination = KafkaDestination(settings(), Suspects(), 5.0)
    parted.errors[1] = error
    verdicts = await handed_over(destination, KEYS[0], KEYS[1], KEYS[2], KEYS[1])
    assert verdicts[0] == verdicts[2] == Accepted()
    assert {part_of(verdicts[number]) for number in (1, 3)} == {"topic[1]" if is_of_a_partition else None}
    parted.sent.clear()
    verdicts = await handed_over(destination, KEYS[1], KEYS[2])
    assert parted.sent == ([2] if is_of_a_partition else [1, 2]), "it is not tried before its time"
    assert verdicts[1] == Accepted()


async def test_a_leader_that_cannot_be_reached_is_an_outage_of_all_where_no_other_server_is_there(
    parted: Parted,
) -> None:
    destination = KafkaDestination(settings(), Suspects(), 5.0)
    parted.errors[1], parted.has_others = LeaderUnreachableError("no way"), False
    assert part_of((await handed_over(destination, KEYS[1]))[0]) is None


async def test_a_lost_leader_is_an_outage_of_its_partition(parted: Parted) -> None:
    destination = KafkaDestination(settings(), Suspects(), 5.0)
    parted.unreachable = {1}
    verdicts = await handed_over(destination, KEYS[1], KEYS[2])
    assert part_of(verdicts[0]) == "topic[1]"
    assert verdicts[1] == Accepted()
    parted.unreachable = {0, 1, 2}
    verdicts = await handed_over(KafkaDestination(settings(), Suspects(), 5.0), *KEYS.values())
    assert {part_of(verdict) for verdict in verdicts.values()} == {None}, "nothing of the topic is left"


async def test_when_all_partitions_are_down_it_is_an_outage_of_the_topic(parted: Parted) -> None:
    destination = KafkaDestination(settings(), Suspects(), 5.0)
    parted.errors = dict.fromkeys(range(3), KafkaAnswerError(19, "too few"))
    for _ in range(2):
        verdicts = await handed_over(destination, *KEYS.values())
        assert None in {part_of(verdict) for verdict in verdicts.values()}
    parted.led, parted.errors = [1], {1: KafkaAnswerError(19, "too few")}
    assert part_of((await handed_over(KafkaDestination(settings(), Suspects(), 5.0), KEYS[1]))[0]) is None


async def test_the_publishers_own_partition_is_all_there_is(parted: Parted) -> None:
    destination = KafkaDestination(settings(partition=1), Suspects(), 5.0)
    parted.errors[1] = KafkaAnswerError(5, "no leader")
    assert part_of((await handed_over(destination, "a"))[0]) is None


async def test_rows_without_a_key_go_around_a_partition_that_is_down(parted: Parted) -> None:
    destination = KafkaDestination(settings(), Suspects(), 5.0)
    parted.errors[1] = KafkaAnswerError(19, "too few")
    verdicts = await handed_over(destination, *[None] * 12)
    waiting = [verdict for verdict in verdicts.values() if isinstance(verdict, Unsent)]
    assert [each.part for each in waiting] == ["topic[1]", None, None, None], "one says what is wrong"
    assert waiting[1:] == [Unsent()] * 3
    assert set((await handed_over(destination, *[None] * 12)).values()) == {Accepted()}


async def test_rows_with_the_publishers_key_cannot_go_around(parted: Parted) -> None:
    destination = KafkaDestination(settings(key=KEYS[1].encode()), Suspects(), 5.0)
    parted.errors[1] = KafkaAnswerError(5, "no leader")
    verdicts = await handed_over(destination, None, None)
    assert {part_of(verdict) for verdict in verdicts.values()} == {"topic[1]"}


async def test_a_partition_is_tried_again_after_it_was_asked_who_leads_it(parted: Parted, clock: Clock) -> None:
    known = outages.Outages(module.RETRY_SECONDS)
    destination = KafkaDestination(settings(), Suspects(), 5.0, known)
    parted.errors[1] = KafkaAnswerError(5, "no leader")
    await handed_over(destination, KEYS[1])
    assert [part.name for part in known.down()] == ["topic[1]"]
    await handed_over(destination, KEYS[1], KEYS[2])
    assert parted.refreshed == 1
    clock.now += 1.0
    parted.errors.clear()
    assert (await handed_over(destination, KEYS[1]))[0] == Accepted()
    assert parted.refreshed == 2
    assert not known


async def test_rows_without_a_key_try_a_partition_that_is_down_when_its_time_comes(
    parted: Parted, clock: Clock
) -> None:
    """Perhaps there are no others: each hiccup of Kafka would take a partition away until the process ends."""
    known = outages.Outages(module.RETRY_SECONDS)
    destination = KafkaDestination(settings(), Suspects(), 5.0, known)
    parted.errors[1] = KafkaAnswerError(6, "moved")
    await handed_over(destination, *[None] * 12)
    parted.sent.clear()
    await handed_over(destination, *[None] * 12)
    assert {*parted.sent} == {0, 2}
    parted.errors.clear()
    clock.now += 1.0
    verdicts = await handed_over(destination, *[None] * 12)
    assert {*parted.sent[-3:]} == {0, 1, 2}
    assert {*verdicts.values()} == {Accepted()}
    assert not known


async def test_a_leader_that_cannot_be_reached_is_looked_for_when_it_is_tried_alone(
    parted: Parted, clock: Clock
) -> None:
    """It costs seconds to find out, and the row that tries must wait for its time, however often there is a look."""
    known = outages.Outages(module.RETRY_SECONDS)
    destination = KafkaDestination(settings(), Suspects(), 5.0, known)
    parted.unreachable = {1}
    await handed_over(destination, KEYS[1])
    assert parted.looked_for == [1]
    clock.now += 1.0
    for _ in range(3):
        assert part_of((await handed_over(destination, KEYS[1], KEYS[2]))[0]) == "topic[1]"
        assert known.seconds_to_next_try("topic[1]") != 0.0
    assert parted.looked_for == [1, 1, 2, 2, 2], "once more, and for the other one each time"


class Knocks:
    """Asks nobody; a test says what is found."""

    is_answering = False
    is_silent = True

    def __init__(self) -> None:
        self.servers: set[int] = set()
        """Those that have answered a batch."""

    def taken(self, server: int) -> None:
        self.servers.add(server)

    async def is_alone(self, partition: Any, server: int, others: Any, since: float) -> bool:
        assert server == 10 + partition.partition, "it has the batch, whatever leads the partition now"
        return self.is_silent

    def has_answered(self, partition: Any) -> bool:
        return self.is_answering

    def gave_up(self, partition: Any) -> None: ...

    async def close(self) -> None: ...


class SilentParted(Parted):
    """Partition 1 takes what it is given, and says nothing until it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.answers = asyncio.Event()
        self.cuts: list[int] = []

    async def produce(self, topic: str, partition: int, batch: bytes) -> None:
        await super().produce(topic, partition, batch)
        if partition == 1:
            await self.answers.wait()

    def cut(self, partition: Any) -> None:
        self.cuts.append(partition.partition)


@pytest.fixture
async def silent(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> SilentParted:
    client = SilentParted()
    monkeypatch.setattr(module, "KafkaClient", lambda _settings: client)
    monkeypatch.setattr(silence, "SILENT_SECONDS", 0.05)
    monkeypatch.setattr(silence, "KNOCK_SECONDS", 0.01)
    return client


class Lanes:
    """Two lanes of a forwarder."""

    def __init__(self) -> None:
        self.outages = outages.Outages(module.RETRY_SECONDS)
        self.knocks: Any = Knocks()
        self.both = [
            KafkaDestination(settings(), Suspects(), 60.0, self.outages, knocker=self.knocks) for _ in range(2)
        ]


async def test_a_partition_that_says_nothing_holds_no_lane_until_it_answers_a_question(
    silent: SilentParted, clock: Clock
) -> None:
    lanes = Lanes()
    for verdicts in await asyncio.gather(*(handed_over(one, KEYS[1], KEYS[2]) for one in lanes.both)):
        assert part_of(verdicts[0]) == "topic[1]"
        assert verdicts[1] == Accepted()
    assert silent.cuts == [1, 1], "nothing more of it leaves this machine"
    assert lanes.knocks.servers == {12}
    assert [one._client for one in lanes.both] == [silent, silent], "the other connections are kept"
    assert [part.name for part in lanes.outages.down()] == ["topic[1]"]
    silent.sent.clear()
    for _ in range(3):
        clock.now += 10.0
        verdicts = await handed_over(lanes.both[1], KEYS[1], KEYS[2])
        assert part_of(verdicts[0]) == "topic[1]"
    assert silent.sent == [2, 2, 2]
    clock.now += 10.0
    lanes.knocks.is_answering = True
    silent.answers.set()
    assert (await handed_over(lanes.both[1], KEYS[1]))[0] == Accepted()
    assert not lanes.outages


async def test_one_lane_tries_a_silent_partition_whatever_time_that_takes(silent: SilentParted, clock: Clock) -> None:
    """It answers questions, and waits for its replicas: a batch that is sent again would be there twice."""
    lanes = Lanes()
    first, second = lanes.both
    await handed_over(first, KEYS[1])
    lanes.knocks.is_answering = True
    clock.now += 10.0
    silent.sent.clear()
    trying = asyncio.create_task(handed_over(first, KEYS[1]))
    await until(lambda: silent.sent)
    for _ in range(3):
        clock.now += 10.0
        verdicts = await handed_over(second, KEYS[1], KEYS[2])
        assert part_of(verdicts[0]) == "topic[1]"
        assert lanes.outages.seconds_to_next_try("topic[1]") == outages.HELD_SECONDS
    assert silent.refreshed > 3, "it learns meanwhile who leads the partition"
    await asyncio.sleep(0.1)
    assert not trying.done()
    assert silent.sent == [1, 2, 2, 2]
    silent.answers.set()
    assert await trying == {0: Accepted()}
    assert not lanes.outages


async def test_a_try_whose_time_is_over_leaves_the_partition_to_the_next_one(
    silent: SilentParted, clock: Clock
) -> None:
    lanes = Lanes()
    first, second = lanes.both
    await handed_over(first, KEYS[1])
    lanes.knocks.is_answering = True
    for one in (first, second):
        clock.now += 10.0
        silent.errors[1] = TimeoutError("no answer in 40 s")
        verdicts = await handed_over(one, KEYS[1], KEYS[2])
        assert part_of(verdicts[0]) == "topic[1]"
        assert "no answer in 40 s" in str(verdicts[0])
        assert verdicts[1] == Accepted()
    assert silent.cuts == [1, 1, 1]
    clock.now += 10.0
    silent.errors.clear()
    trying = asyncio.create_task(handed_over(first, KEYS[1]))
    await asyncio.sleep(0.01)
    trying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await trying
    clock.now += 10.0
    silent.answers.set()
    assert (await handed_over(second, KEYS[1]))[0] == Accepted()


@pytest.mark.parametrize("is_only_one", [False, True])
async def test_where_all_partitions_say_nothing_the_client_waits_for_its_time(
    silent: SilentParted, is_only_one: bool
) -> None:
    lanes = Lanes()
    if is_only_one:
        silent.led = [1]
    else:
        lanes.knocks.is_silent = False
    waiting = [asyncio.create_task(handed_over(one, KEYS[1])) for one in lanes.both]
    await asyncio.sleep(0.2)
    assert not any(task.done() for task in waiting)
    assert not lanes.outages
    silent.answers.set()
    assert await asyncio.gather(*waiting) == [{0: Accepted()}] * 2
