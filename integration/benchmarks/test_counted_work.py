"""Statements, round trips and WAL bytes per message stay at what the baseline file allows."""

from collections.abc import Awaitable, Callable

import pytest

from benchmarks.counting import baseline, work
from integration.servers.kafka import KafkaServer
from integration.servers.postgres import EmbeddedPostgres, PostgresServer

Count = Callable[[str], Awaitable[dict[str, float]]]


@pytest.fixture
def hand_over(request: pytest.FixtureRequest) -> Count:
    kafka: KafkaServer = request.getfixturevalue("kafka_server")
    topic: str = request.getfixturevalue("kafka_topic")
    return lambda url: work.hand_over(url, kafka.bootstrap, topic)


@pytest.mark.parametrize("name", [work.PUBLISH, work.PUBLISH_BATCH, work.HAND_OVER, work.HANDLER])
async def test_no_more_work_than_the_baseline(
    name: str, postgres_server: PostgresServer, request: pytest.FixtureRequest
) -> None:
    if not isinstance(postgres_server, EmbeddedPostgres):
        pytest.skip("WAL is counted on a server that nobody else writes to, with full_page_writes=off")
    counts: dict[str, Count] = {
        work.PUBLISH: work.publish,
        work.PUBLISH_BATCH: work.publish_batch,
        work.HANDLER: work.handle,
    }
    count = counts[name] if name in counts else request.getfixturevalue("hand_over")
    allowed = baseline.read()[name]
    # Whoever else is at work on the server can only add to what is counted: a second count may clear the first.
    for _ in range(2):
        with postgres_server.database() as url:
            found = await count(url)
        print(f"\n{name}, per message: {found}")
        excesses = baseline.excesses(name, found, allowed)
        if not excesses:
            return
    pytest.fail("\n".join([*excesses, baseline.RENEW]))


def test_what_is_above_the_baseline_is_told_with_its_numbers() -> None:
    allowed = {"statements": 1.0, "round trips": 3.0, "WAL bytes": 500.0}
    assert baseline.excesses(work.PUBLISH, {"statements": 1.0, "round trips": 3.05, "WAL bytes": 520.0}, allowed) == []
    assert baseline.excesses(work.PUBLISH, {"statements": 2.0, "round trips": 3.0, "WAL bytes": 600.0}, allowed) == [
        f"{work.PUBLISH}: 2 statements per message, the baseline is 1",
        f"{work.PUBLISH}: 600 WAL bytes per message, the baseline is 500",
    ]
