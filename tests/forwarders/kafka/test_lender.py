"""Who has which connections, and which of them stay open."""

import asyncio
from typing import Any

import pytest
from aiokafka.structs import BrokerMetadata

from faststream_outbox.forwarders.kafka import lender as module
from faststream_outbox.forwarders.kafka.client import KafkaClient
from faststream_outbox.forwarders.kafka.lender import COURTESY_SECONDS, MOST_IDLE, MOST_LOOKS, Lender
from tests.engine.fakes import until

from .connections import Connection
from .rows import settings

OPTIONS = {"bootstrap_servers": "localhost:9092"}


class Connections:
    """Stands where aiokafka's client does."""

    made: list["Connections"]

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.cluster: Any = None
        self.is_closed = False
        self._conns: dict[tuple[Any, int], Connection] = {}
        self.made.append(self)

    async def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Connections]:
    Connections.made = []
    monkeypatch.setattr(module, "AIOKafkaClient", Connections)
    return Connections.made


def lane(**options: Any) -> KafkaClient:
    return KafkaClient(settings(client_options={**OPTIONS, **options}))


async def test_lanes_have_the_same_connections_one_after_another(made: list[Connections]) -> None:
    lanes = [lane() for _ in range(200)]
    for each in lanes:
        assert each._client.cluster is each._cluster  # type: ignore[comparison-overlap]
        each.give_back()
    assert len(made) == 1
    for each in lanes:
        assert not made[0].is_closed
        await each.close()
    assert made[0].is_closed


async def test_lanes_at_work_have_connections_of_their_own(made: list[Connections]) -> None:
    lanes = [lane() for _ in range(3)]
    assert len({id(each._client) for each in lanes}) == 3
    for each in lanes:
        assert each._client is each._client
        await each.close()


async def test_connections_with_something_unanswered_are_closed_and_those_of_other_lanes_are_not(
    made: list[Connections],
) -> None:
    troubled, sending, idle = lane(), lane(), lane()
    for each in (troubled, sending, idle):
        assert each._client
    idle.give_back()
    await troubled.close()
    assert [each.is_closed for each in made] == [True, False, True], "what is idle may be as bad, and carries no rows"
    assert sending._client is made[1]  # type: ignore[comparison-overlap]
    sending.give_back()
    assert idle._client is made[1]  # type: ignore[comparison-overlap]
    await sending.close()
    await idle.close()
    assert all(each.is_closed for each in made)


async def test_other_settings_have_other_connections(made: list[Connections]) -> None:
    first, second = lane(sasl_plain_username="a"), lane(sasl_plain_username="b")
    assert first._client
    first.give_back()
    assert second._client.options["sasl_plain_username"] == "b"  # type: ignore[attr-defined]
    await first.close()
    await second.close()


async def test_after_trouble_with_a_server_a_connection_is_opened(made: list[Connections]) -> None:
    first, second = lane(), lane()
    assert first._client
    first.give_back()
    second.borrow(anew=True)
    assert len(made) == 2
    await first.close()
    await second.close()


async def test_what_a_burst_has_opened_is_closed_when_it_is_not_needed(
    made: list[Connections], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SURPLUS_SECONDS", 0.01)
    lanes = [lane() for _ in range(10)]
    for each in lanes:
        assert each._client
    for each in lanes:
        each.give_back()
    await until(lambda: sum(not each.is_closed for each in made) == MOST_IDLE)
    await asyncio.sleep(0.03)
    assert sum(not each.is_closed for each in made) == MOST_IDLE
    assert not lanes[0]._client.is_closed  # type: ignore[attr-defined]
    for each in lanes:
        await each.close()


async def test_what_is_needed_all_the_time_stays_open(made: list[Connections]) -> None:
    lanes = [lane() for _ in range(10)]
    for _ in range(5):
        for each in lanes:
            assert each._client
        lanes[0]._lender._close_surplus()
        for each in lanes:
            each.give_back()
    assert len(made) == 10
    for each in lanes:
        await each.close()


async def test_a_few_lanes_look_at_once(made: list[Connections]) -> None:
    lender = Lender.to(OPTIONS)
    looking = most = 0

    async def look() -> None:
        nonlocal looking, most
        async with lender.look():
            looking += 1
            most = max(most, looking)
            await asyncio.sleep(0.001)
            looking -= 1

    await asyncio.gather(*(look() for _ in range(20)))
    assert most == MOST_LOOKS
    await lender.leave()


async def test_looks_that_hang_keep_no_lane_from_its_own(
    made: list[Connections], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert COURTESY_SECONDS < 5
    monkeypatch.setattr(module, "COURTESY_SECONDS", 0.01)
    lender = Lender.to(OPTIONS)

    async def hang() -> None:
        async with lender.look():
            await asyncio.Event().wait()

    hanging = [asyncio.create_task(hang()) for _ in range(MOST_LOOKS)]
    await asyncio.sleep(0)
    async with asyncio.timeout(2.5), lender.look():
        pass
    for task in hanging:
        task.cancel()
    await asyncio.wait(hanging)
    async with asyncio.timeout(2.5), lender.look():
        assert lender._looks._value == MOST_LOOKS - 1
    await lender.leave()


async def test_a_borrower_gets_no_connection_to_another_server_than_it_means(made: list[Connections]) -> None:
    """Each borrower numbers those that it starts from anew, and a server may have moved."""
    first, second = lane(), lane()
    other, same, moved, unknown = Connection(9093), Connection(9092), Connection(9094), Connection(9095)
    second._cluster._brokers = {1: BrokerMetadata(1, "localhost", 9099, None)}
    first._client._conns = {("bootstrap-0", 0): other, ("bootstrap-0", 1): same, (1, 0): moved, (2, 0): unknown}
    first.give_back()
    assert [*second._client._conns] == [("bootstrap-0", 1), (2, 0)]
    assert [each.transport.was_reset for each in (other, same, moved, unknown)] == [True, False, True, False]
    await first.close()
    await second.close()


async def test_a_connection_whose_answer_nobody_waits_for_is_not_lent(made: list[Connections]) -> None:
    """What is sent over it would have to wait for that answer."""
    first, second = lane(), lane()
    awaited, given_up = (asyncio.get_running_loop().create_future() for _ in range(2))
    given_up.cancel()
    silent, well, busy = Connection(1, given_up), Connection(2), Connection(3, given_up, awaited)
    first._client._conns = {(1, 0): silent, (2, 0): well, (3, 0): busy}
    first.give_back()
    assert [*second._client._conns] == [(2, 0), (3, 0)]
    assert [each.transport.was_reset for each in (silent, well, busy)] == [True, False, False]
    await first.close()
    await second.close()
