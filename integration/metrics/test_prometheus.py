"""What Prometheus sees of a broker on a real table, with a handler and a forwarder."""

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest
from faststream.redis import RedisBroker
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import Table as SqlTable
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from faststream_outbox import ConstantRetry, OutboxBroker
from faststream_outbox._engine.runtime import Runtime
from faststream_outbox.exceptions import ConfigError
from faststream_outbox.metrics.instruments import ALL, Kind
from faststream_outbox.prometheus import OutboxMetrics, OutboxPrometheusMiddleware
from integration.broker.conftest import MakeBroker
from integration.broker.observing import Inbox, eventually
from integration.servers.redis import RedisServer

SECRET = "s3cret-body"


class Page:
    """What a scrape answers."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    @property
    def text(self) -> str:
        return generate_latest(self._registry).decode()

    @property
    def samples(self) -> Mapping[str, Mapping[frozenset[str], float]]:
        """Values by name, then by the values of the labels."""
        found: dict[str, dict[frozenset[str], float]] = {}
        for family in text_string_to_metric_families(self.text):
            for name, labels, value, *_ in family.samples:
                found.setdefault(name, {})[frozenset(labels.values())] = value
        return found

    def __call__(self, name: str, *labels: str, outbox: str = "outbox") -> float | None:
        return self.samples.get(f"outbox_{name}", {}).get(frozenset({outbox, *labels}))


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def page(registry: CollectorRegistry) -> Page:
    return Page(registry)


@pytest.fixture
def metrics(registry: CollectorRegistry) -> OutboxMetrics:
    return OutboxMetrics(registry=registry, refresh_seconds=0.1)


async def test_publishing_handling_and_forwarding(
    make_broker: MakeBroker,
    session: AsyncSession,
    dlq_table: SqlTable,
    metrics: OutboxMetrics,
    page: Page,
    redis_server: RedisServer,
    redis_key: str,
) -> None:
    broker = make_broker(metrics=metrics, dlq_table=dlq_table)
    redis = RedisBroker(redis_server.url, logger=None)
    broker.forwarder("orders", to=redis.publisher(stream=redis_key), name="to-redis")

    @broker.subscriber("mails", retry_strategy=ConstantRetry(delay_seconds=0.05, max_attempts=2))
    async def handle(body: str) -> None:
        if body == "bad":
            raise ValueError(SECRET)

    for queue in ("orders", "mails"):
        await broker.publish_batch(SECRET, "2", "3", queue=queue, session=session, key="key-of-a-customer")
    await broker.publish("bad", queue="mails", session=session)
    for _ in range(2):
        await broker.publish("once", queue="mails", session=session, idempotency_key="the-same")
    await broker.publish("later", queue="mails", session=session, activate_in=timedelta(hours=1), timer_id="in-an-hour")
    await session.commit()
    assert page("published_total", "orders") == 3
    assert page("published_total", "mails") == 6
    assert page("publish_duplicates_total", "mails") == 1
    assert page("publish_seconds_count", "mails") == 5

    await broker.start()
    await eventually(lambda: page("outcomes_total", "orders", "delivered") == 3)
    await eventually(lambda: page("outcomes_total", "mails", "dead") == 1)
    assert page("forwarder_messages_total", "to-redis", "accepted") == 3
    assert page("outcomes_total", "mails", "delivered") == 4
    assert page("outcomes_total", "mails", "retry") == 1
    assert page("dead_letters_total", "mails", "retries_exhausted") == 1
    assert page("handle_seconds_count", "mails", "delivered") == 4
    assert page("handle_seconds_count", "mails", "retry") == 1
    assert page("handle_seconds_count", "mails", "dead") == 1
    for queue, delivered in (("orders", 3), ("mails", 4)):
        assert page("commit_to_ack_seconds_count", queue) == delivered
        assert 0.0 < (page("commit_to_ack_seconds_sum", queue) or 0.0) < 60.0
    assert page("hand_over_rows_sum", "to-redis") == 3
    for name in ("hand_over_seconds", "take_seconds", "send_seconds"):
        assert (page(f"{name}_count", "to-redis") or 0) >= 1
    whole = page("hand_over_seconds_sum", "to-redis") or 0.0
    parts = (page("take_seconds_sum", "to-redis") or 0.0) + (page("send_seconds_sum", "to-redis") or 0.0)
    assert 0.0 < parts <= whole
    assert (page("claim_rows_sum", "Handle") or 0) == 6
    assert (page("settle_rows_sum") or 0) == 6

    await gauges_are_right(page)
    text_of_page = page.text
    for secret in (SECRET, "key-of-a-customer", "the-same", "in-an-hour", "ValueError", "s3cret"):
        assert secret not in text_of_page
    await broker.stop()
    assert page("forwarder_state", "to-redis", "flowing") is None, "gauges end with the loops"
    assert page("published_total", "orders") == 3, "counts do not"


async def gauges_are_right(page: Page) -> None:
    """What is read of the tables and the process, when a timer and a dead letter are left."""
    await eventually(lambda: page("rows", "mails", "moved") == 1)
    assert page("rows", "mails", "timer") == 1
    assert page("rows", "mails", "ready") == 0
    assert page("oldest_seconds", "mails") == 0.0, "a timer is no backlog"
    assert page("forwarder_state", "to-redis", "flowing") == 1
    assert page("forwarder_state", "to-redis", "down") == 0
    assert (page("database_up"), page("present"), page("stalled_loops"), page("set_aside")) == (1, 1, 0, 0)
    assert (page("table_bytes", "outbox") or 0) > 0
    assert page("table_dead_rows", "outbox_dlq") is not None
    assert page("oldest_transaction_seconds") is not None
    assert page("pool_limit") == 15
    assert (page("pool_connections", "in_use") or 0) + (page("pool_connections", "idle") or 0) > 0


async def test_a_backlog_and_an_old_snapshot_are_seen(
    make_broker: MakeBroker, session: AsyncSession, engine: AsyncEngine, metrics: OutboxMetrics, page: Page
) -> None:
    """Rows of a queue that nobody consumes, one of them due, one leased by a process that is gone."""
    broker = make_broker(metrics=metrics)
    await broker.publish_batch(*range(4), queue="orders", session=session)
    await session.execute(text("UPDATE outbox SET created_at = clock_timestamp() - interval '2 minutes' WHERE id = 1"))
    await session.commit()
    async with engine.connect() as holding:
        await holding.execute(text("SELECT txid_current()"))
        await broker.start()
        await eventually(lambda: page("rows", "orders", "ready") == 4)
        assert 120 <= (page("oldest_seconds", "orders") or 0) < 240
        await eventually(lambda: (page("oldest_transaction_seconds") or 0) > 1.5)
        assert (page("look_age_seconds") or 0.0) < 30.0
    await eventually(lambda: (page("oldest_transaction_seconds") or 0) < 1.5, within=15)


async def test_the_database_is_down(
    make_broker: MakeBroker, metrics: OutboxMetrics, page: Page, engine: AsyncEngine
) -> None:
    broker = make_broker(metrics=metrics)
    await broker.start()
    await eventually(lambda: page("table_bytes", "outbox") is not None)
    async with engine.begin() as connection:
        await connection.execute(text("ALTER TABLE outbox RENAME TO elsewhere"))
    await eventually(lambda: page("table_bytes", "outbox") is None, within=10)
    assert page("look_age_seconds") is None, "old figures are not shown as new ones"


async def test_a_dead_process_is_taken_over(
    make_broker: MakeBroker, session: AsyncSession, metrics: OutboxMetrics, page: Page, inbox: Inbox
) -> None:
    """A lease that ran out is given back, and its row is known to come again."""
    broker = make_broker(metrics=metrics)

    @broker.subscriber("orders")
    async def handle(body: int) -> None:
        inbox.add(body)

    await broker.publish(1, queue="orders", session=session)
    await session.execute(
        text(
            "UPDATE outbox SET acquired_token = 'lease:gone', acquired_at = clock_timestamp(), deliveries_count = 1, "
            "next_attempt_at = clock_timestamp() - interval '1 second'"
        )
    )
    await session.commit()
    await broker.start()
    await inbox.wait_for(1)
    await eventually(lambda: page("take_overs_total", "orders") == 1)
    assert page("redelivered_total", "orders") == 1


async def test_brokers_share_one_registry(
    make_broker: MakeBroker, session: AsyncSession, metrics: OutboxMetrics, page: Page, registry: CollectorRegistry
) -> None:
    first, second = make_broker(metrics=metrics.named("tenant-1")), make_broker(metrics=metrics.named("tenant-2"))
    await first.publish(1, queue="orders", session=session)
    await session.commit()
    await asyncio.gather(first.start(), second.start())
    await eventually(lambda: page("rows", "orders", "ready", outbox="tenant-2") == 1)
    assert page("published_total", "orders", outbox="tenant-1") == 1
    assert page("published_total", "orders", outbox="tenant-2") is None
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        OutboxMetrics(registry=registry)
    with pytest.raises(ConfigError, match="outbox: must not be empty"):
        metrics.named("")


async def test_two_brokers_with_one_name_are_told_apart(
    make_broker: MakeBroker, metrics: OutboxMetrics, page: Page
) -> None:
    first, second = make_broker(metrics=metrics), make_broker(metrics=metrics)
    await first.start()
    await second.start()
    assert (page("database_up"), page("database_up", outbox="outbox#2")) == (1, 1)
    await first.stop()
    assert (page("database_up"), page("database_up", outbox="outbox#2")) == (None, 1)


async def test_gauges_that_cannot_be_read_hide_no_others(
    make_broker: MakeBroker, metrics: OutboxMetrics, page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where another thread reads a set that a loop changes, again and again."""
    first, second = make_broker(metrics=metrics.named("one")), make_broker(metrics=metrics.named("two"))
    await asyncio.gather(first.start(), second.start())
    broken = first.config.broker_config.current_runtime
    failures = iter([RuntimeError("Set changed size during iteration")] * 3)

    def stalled(runtime: Runtime) -> list[str]:
        if runtime is broken and (failure := next(failures, None)):
            raise failure
        return []

    monkeypatch.setattr(Runtime, "stalled", property(stalled))
    assert page("database_up", outbox="one") == 1, "it is tried again"
    failures = iter([RuntimeError("Set changed size during iteration")] * 100)
    assert page("database_up", outbox="one") is None
    assert page("database_up", outbox="two") == 1


async def test_faststreams_own_middleware(
    make_broker: MakeBroker, session: AsyncSession, metrics: OutboxMetrics, registry: CollectorRegistry, page: Page
) -> None:
    """It counts what it counts of FastStream's other brokers, beside ours."""
    broker = make_broker(metrics=metrics, middlewares=[OutboxPrometheusMiddleware(registry=registry, app_name="shop")])

    @broker.subscriber("orders")
    async def handle(body: int) -> None:
        if body == 2:
            raise RuntimeError(SECRET)

    await broker.publish_batch(1, 2, queue="orders", session=session)
    await session.commit()
    await broker.start()

    def count(name: str, *labels: str) -> float | None:
        return page.samples.get(f"faststream_{name}_total", {}).get(frozenset({"shop", "outbox", "orders", *labels}))

    await eventually(lambda: count("received_processed_messages", "error") == 1)
    assert count("received_messages") == 2
    assert count("received_processed_messages", "acked") == 1
    assert count("published_messages", "success") == 2
    assert SECRET not in page.text


@pytest.mark.parametrize("metrics", [object(), "prometheus", OutboxMetrics])
def test_other_metrics_are_refused(metrics: Any, engine: AsyncEngine, outbox_table: SqlTable) -> None:
    with pytest.raises(ConfigError, match="metrics: must be OutboxMetrics"):
        OutboxBroker(engine, outbox_table=outbox_table, metrics=metrics)


@pytest.mark.parametrize("options", [{"refresh_seconds": 0}, {"most_queues": 0}])
def test_numbers_are_checked(options: dict[str, Any], registry: CollectorRegistry) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        OutboxMetrics(registry=registry, **options)


def test_all_gauges_are_on_the_page_with_a_text(metrics: OutboxMetrics, page: Page) -> None:
    for each in ALL:
        if each.kind is Kind.GAUGE:
            assert f"# HELP {each.name} " in page.text
