"""The privileges of each role, as printed in docs/operating.md: they are enough, and none of them is too much."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TypeAlias
from uuid import uuid4

import pytest
from faststream.kafka import KafkaBroker
from sqlalchemy import MetaData, make_url, text
from sqlalchemy import Table as SqlTable
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from faststream_outbox import OutboxBroker, Outgoing, make_outbox_control_table, make_position_table
from faststream_outbox._store.positions import NewParts, Takeover
from faststream_outbox._store.postgres import floors
from faststream_outbox._store.postgres.store import PostgresStore
from faststream_outbox._values.outcome import Dead, Delivered, Outcome, Released, Retry, Settlement
from faststream_outbox._values.position import Mark, Move, Part, Position, Producer
from faststream_outbox._values.row import OutboxRow
from faststream_outbox.schema import SHARDS
from tests.store.suite import LONG, ME, OTHER, shards

from .observing import Table

PAGE = Path(__file__).parents[2] / "docs" / "operating.md"
BLOCK = re.compile(r"^```sql\n(.*?)^```$", re.MULTILINE | re.DOTALL)
GRANT = re.compile(r"GRANT (.*?)\s+ON ((?:SEQUENCE )?\w+) TO \w+;", re.DOTALL)
PRIVILEGE = re.compile(r"(SELECT|INSERT|UPDATE|DELETE)(?: \((.*?)\))?", re.DOTALL)
ROLE = "outbox_role_of_a_test"
OTHERS = MetaData()
POSITIONS = make_position_table(OTHERS)
CONTROLS = make_outbox_control_table(OTHERS)


def granted_to(*headings: str) -> list[str]:
    """What stands on the page under these headings, a column each: `SELECT (id) ON outbox`."""
    found: list[str] = []
    for block in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        for part in re.split(r"^-- ", block, flags=re.MULTILINE)[1:]:
            heading, _, statements = part.partition("\n")
            if heading in headings:
                for privileges, table in GRANT.findall(statements):
                    for kind, columns in PRIVILEGE.findall(privileges):
                        each = [f" ({column.strip()})" for column in columns.split(",")] if columns else [""]
                        found += [f"{kind}{column} ON {table}" for column in each]
    return found


class Denied(Exception):
    """Something was not done, and no error said so."""


@dataclass(frozen=True)
class Site:
    """The tables, as the role and as their owner sees them."""

    engine: AsyncEngine
    owner: AsyncEngine
    outbox: SqlTable
    dlq: SqlTable

    def broker(self, engine: AsyncEngine | None = None, *, dlq: bool = False, controls: bool = False) -> OutboxBroker:
        return OutboxBroker(
            engine or self.engine,
            outbox_table=self.outbox,
            dlq_table=self.dlq if dlq else None,
            control_table=CONTROLS if controls else None,
            logger=None,
        )


async def publish(site: Site, *, tee: bool = False) -> None:
    broker = site.broker()
    if tee:
        broker.forwarder("q", to=KafkaBroker().publisher("topic"), tee=True, name="copies")
        broker.forwarder("q", to=KafkaBroker().publisher("topic"))
    async with AsyncSession(site.engine) as session, session.begin():
        await broker.publish(1, queue="q", key="k", session=session)
        for _ in range(2):
            await broker.publish(1, queue="q", idempotency_key="i", session=session)
            await broker.publish(1, queue="q", timer_id="t", activate_in=timedelta(1), session=session)
            await broker.publish_batch(Outgoing(1, idempotency_key="j"), 2, queue="q", session=session)
        await broker.publish(1, queue="q", idempotency_key="x", timer_id="y", session=session)
        await broker.publish(1, queue="q", activate_in=timedelta(1), session=session)


async def publish_with_tee(site: Site) -> None:
    await publish(site, tee=True)


async def publish_and_cancel(site: Site) -> None:
    await publish(site)
    async with AsyncSession(site.engine) as session, session.begin():
        assert await site.broker().cancel_timer(queue="q", timer_id="t", session=session)


async def publish_and_move(site: Site) -> None:
    await publish(site)
    timer = {"queue": "q", "timer_id": "t", "timer_conflict": "extend"}
    async with AsyncSession(site.engine) as session, session.begin():
        assert await site.broker().publish(2, **timer, key="k", activate_in=timedelta(2), session=session)
    [row] = await Table(site.owner).query("SELECT * FROM outbox WHERE timer_id = 't'")
    if row.payload != b"2":
        raise Denied


async def fill(site: Site, count: int, *, queue: str = "q") -> None:
    async with AsyncSession(site.owner) as session, session.begin():
        keys = [Outgoing(1, key=uuid4().hex) for _ in range(count)]
        await site.broker(site.owner).publish_batch(*keys, queue=queue, session=session)


OUTCOMES: Sequence[Outcome] = (
    Delivered(),
    Retry(LONG),
    Released(),
    Dead("rejected", "no"),
    Dead("rejected", "no", True),
)


CHOSEN = 10**12


async def find_all_beside_a_chosen_id(site: Site) -> None:
    """Raise `Denied` where a row that SQL wrote with a high id hides rows with ids of the sequence."""
    chosen = f"INSERT INTO outbox (id, queue, idempotency_key, payload) VALUES ({CHOSEN}, 'chosen', 'i', '')"
    await Table(site.owner).query(chosen)
    store, both = PostgresStore(site.engine, site.outbox), shards("beside", "chosen")

    async def deliver_others() -> int:
        async with store.hand_over(both, limit=100, breadth=2 * SHARDS) as taken:
            assert taken is not None
            await taken.settle([Settlement(row, Delivered()) for row in taken.rows if row.id != CHOSEN])
            return sum(row.id != CHOSEN for row in taken.rows)

    with pytest.MonkeyPatch.context() as patch:
        # A walk from the beginning finds these few rows at once.
        patch.setattr(floors, "WALKS_APART", 1_000_000)
        patch.setattr(floors, "LONGEST_APART", 1_000_000)
        for _ in range(6):
            await fill(site, 1, queue="beside")
            await store.survey(both)
            if await deliver_others() != 1:
                raise Denied
        await fill(site, 20, queue="beside")
        if await deliver_others() != 20:
            raise Denied


async def consume(site: Site, *, dlq: bool = False) -> None:
    await fill(site, 16)
    store = PostgresStore(site.engine, site.outbox, site.dlq if dlq else None)
    everywhere = shards("q")

    def settlements(rows: Sequence[OutboxRow]) -> list[Settlement]:
        return [Settlement(row, outcome) for row, outcome in zip(rows, OUTCOMES, strict=False)]

    async with store.listen(ME) as line:
        assert line is not None
        rows = (await store.claim(everywhere, limit=5, lease_seconds=LONG, token=ME)).rows
        await store.renew(rows, lease_seconds=LONG, token=ME)
        refused = list(await store.settle(settlements(rows), token=ME))
        await store.claim(everywhere, limit=1, lease_seconds=0.0, token=OTHER)
        await store.rescue(token=ME, suspects=frozenset())
        await store.claim(everywhere, limit=1, lease_seconds=LONG, token=ME)
        await store.give_back(["q"], known=[], token=ME)
        async with store.hand_over(everywhere, limit=100, breadth=SHARDS) as taken:
            assert taken is not None
            refused += await taken.settle(settlements(taken.rows))
        await store.outlook(everywhere)
        await store.lag(everywhere)
        await store.announce(["q"])
        await store.unconsumed(["q"], limit=10)
        await store.ping()
    if refused:
        raise Denied(refused)
    if dlq and await Table(site.owner).count("true", "outbox_dlq") != 2:
        raise Denied
    await find_all_beside_a_chosen_id(site)


async def consume_with_dead_letters(site: Site) -> None:
    await consume(site, dlq=True)


async def send_exactly_once(site: Site) -> None:
    await fill(site, 2)
    store = PostgresStore(site.engine, site.outbox, None, POSITIONS)
    assert store.positions is not None
    everywhere, part = shards("q"), Part("topic", 0)
    first = [Takeover(shard, None, 1, Producer(7, 0)) for shard in everywhere]
    assert len(await store.positions.take_over("relay", first)) == SHARDS
    assert len(await store.positions.take_over("relay", [Takeover(shard, 1, 2) for shard in everywhere])) == SHARDS
    for outcome in (Delivered(), Dead("rejected", "no")):
        async with store.hand_over(everywhere, limit=1, forwarder="relay") as taken:
            assert taken is not None
            [row], [shard] = taken.rows, taken.row_shards()
            token = taken.tokens[shard]
            assert await store.positions.open("relay", [NewParts(shard, token, {part: 0})])
            assert await store.positions.alive({Mark(row.id, row.idempotency_key)})
            moves = {shard: Move(token, 3, {part: Position(1, 0)})}
            if refused := await taken.settle([Settlement(row, outcome)], moves):
                raise Denied(refused)


async def bury(site: Site) -> None:
    """Make dead letters of every kind."""
    for dlq in (None, site.dlq):
        await fill(site, 8)
        store = PostgresStore(site.owner, site.outbox, dlq)
        async with store.hand_over(shards("q"), limit=100, breadth=SHARDS) as taken:
            assert taken is not None
            await taken.settle([Settlement(row, Dead("rejected", None, row.id % 2 == 0)) for row in taken.rows])


async def support(site: Site) -> None:
    letters = site.broker(dlq=True).dead_letters
    await bury(site)
    assert len(await letters.list()) == await letters.count() == 16
    assert await letters.replay() == 16
    await bury(site)
    assert await letters.discard() == 32


async def support_with_a_log(site: Site) -> None:
    letters = site.broker(dlq=True, controls=True).dead_letters
    await bury(site)
    assert [done async for done in letters.replay_all(batch=8)] == [8, 16]
    await bury(site)
    assert [done async for done in letters.discard_all(batch=20)] == [20, 32]
    lines = await site.broker(site.owner, controls=True).admin.audit()
    assert [(line.action, line.affected) for line in lines] == [("discard", 32), ("replay", 16)]


async def heed_pauses(site: Site) -> None:
    store = PostgresStore(site.engine, site.outbox, control_table=CONTROLS)
    assert store.controls is not None
    assert await store.controls.pauses() == []


async def pause(site: Site) -> None:
    admin = site.broker(controls=True).admin
    await admin.pause(queue="q")
    await admin.pause(queue="q", until=timedelta(hours=1))
    assert len(await admin.pauses()) == 1
    assert await admin.resume(queue="q")
    assert len(await admin.audit()) == 3


async def look_on(site: Site) -> None:
    await PostgresStore(site.engine, site.outbox).lag(shards("q"))
    async with AsyncSession(site.engine) as session:
        await site.broker().fetch_unprocessed(session=session)
    await site.broker().dead_letters.list()


Use: TypeAlias = Callable[[Site], Awaitable[None]]
ROLES: dict[tuple[str, ...], Use] = {
    ("publisher",): publish,
    ("publisher", "publisher with tee"): publish_with_tee,
    ("publisher", "publisher with timers"): publish_and_cancel,
    ("publisher", "publisher that moves timers"): publish_and_move,
    ("consumer",): consume,
    ("consumer", "consumer with a dead-letter table"): consume_with_dead_letters,
    ("consumer", "consumer that sends exactly once"): send_exactly_once,
    ("consumer that heeds pauses",): heed_pauses,
    ("dead letters",): support,
    ("dead letters", "dead letters with an audit log"): support_with_a_log,
    ("pauses",): pause,
    ("onlooker",): look_on,
}


@asynccontextmanager
async def site_of(owner: AsyncEngine, tables: Sequence[SqlTable], privileges: Sequence[str]) -> AsyncIterator[Site]:
    """A role with just these privileges, and empty tables."""
    async with owner.begin() as connection:
        await connection.run_sync(OTHERS.create_all)
        await connection.execute(text("TRUNCATE outbox, outbox_dlq, outbox_position, outbox_control"))
        await connection.execute(text(f"CREATE ROLE {ROLE} LOGIN PASSWORD 'secret'"))
        for privilege in privileges:
            await connection.execute(text(f"GRANT {privilege} TO {ROLE}"))
    engine = create_async_engine(make_url(owner.url).set(username=ROLE, password="secret"))
    try:
        yield Site(engine, owner, *tables)
    finally:
        await engine.dispose()
        async with owner.begin() as connection:
            await connection.execute(text(f"DROP OWNED BY {ROLE}"))
            await connection.execute(text(f"DROP ROLE {ROLE}"))


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role[-1])
async def test_what_is_printed_is_enough_and_no_more(
    engine: AsyncEngine, outbox_table: SqlTable, dlq_table: SqlTable, role: tuple[str, ...]
) -> None:
    use, tables = ROLES[role], [outbox_table, dlq_table]
    privileges = granted_to(*role)
    assert privileges
    async with site_of(engine, tables, privileges) as site:
        await use(site)
    for privilege in granted_to(role[-1]):
        fewer = [each for each in privileges if each != privilege]
        async with site_of(engine, tables, fewer) as site:
            with pytest.raises((DBAPIError, Denied)) as refused:
                await use(site)
        assert isinstance(refused.value, Denied) or "permission denied" in str(refused.value), privilege


async def test_a_publisher_can_neither_read_nor_change_what_is_published(
    engine: AsyncEngine, outbox_table: SqlTable, dlq_table: SqlTable
) -> None:
    every = granted_to("publisher", "publisher with tee", "publisher with timers")
    plain = granted_to("publisher")
    async with site_of(engine, [outbox_table, dlq_table], plain) as site:
        await publish(site)
        for statement in (
            "SELECT payload FROM outbox",
            "UPDATE outbox SET queue = 'other'",
            "DELETE FROM outbox",
            "INSERT INTO outbox (id, queue, idempotency_key, payload) VALUES (9, 'q', 'i', '')",
            "INSERT INTO outbox (created_at, queue, idempotency_key, payload) VALUES (now(), 'q', 'i', '')",
        ):
            with pytest.raises(DBAPIError, match="permission denied"):
                await Table(site.engine).query(statement)
    assert len(set(every)) == len(every)


def test_every_privilege_of_the_page_is_tried() -> None:
    headings = re.findall(r"^-- (.*)$", "".join(BLOCK.findall(PAGE.read_text(encoding="utf-8"))), re.MULTILINE)
    assert sorted(headings) == sorted({role[-1] for role in ROLES})
