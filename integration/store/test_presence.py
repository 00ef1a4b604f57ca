"""A holder that is gone loses its leases at once, a living one never; and a listener that is cut off says so."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest
from sqlalchemy import NullPool, Table, make_url, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from faststream_outbox._store.postgres import listener
from integration.faults.proxy import TcpProxy
from tests.store.suite import ME, OTHER, claim, draft, ids, put

from .subject import PostgresSubject, kill, listening_backends

NOBODY: frozenset[str] = frozenset()


@pytest.fixture
def subject(engine: AsyncEngine, outbox_table: Table) -> PostgresSubject:
    return PostgresSubject(engine, outbox_table, None)


@pytest.fixture
async def other_engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(database_url)
    yield engine
    await engine.dispose()


@pytest.fixture
def other(other_engine: AsyncEngine, outbox_table: Table) -> PostgresSubject:
    """Another process, as it were."""
    return PostgresSubject(other_engine, outbox_table, None)


async def until_no_one_listens(engine: AsyncEngine) -> None:
    async with asyncio.timeout(10):
        while await listening_backends(engine):
            await asyncio.sleep(0.01)


async def test_rows_of_a_killed_holder_are_free_on_the_second_pass(
    subject: PostgresSubject, other: PostgresSubject
) -> None:
    written = await put(subject, draft(key="k"), draft(key="k"))
    async with other.store.listen(OTHER):
        await claim(other, token=OTHER)
        [backend] = await listening_backends(subject.engine)
        assert await subject.store.rescue(token=ME, suspects=NOBODY) == await subject.store.rescue(
            token=ME, suspects=frozenset({OTHER})
        )
        await kill(subject.engine, backend)
        first = await subject.store.rescue(token=ME, suspects=NOBODY)
        assert (first.absent, first.freed_queues) == ({OTHER}, NOBODY)
        second = await subject.store.rescue(token=ME, suspects=first.absent)
        assert second.freed_queues == {"q"}
        rows = await claim(subject)
        assert ids(rows) == written
        assert {row.deliveries_count for row in rows} == {2}


async def test_a_living_holder_is_never_freed(subject: PostgresSubject, other: PostgresSubject) -> None:
    await put(subject)
    async with other.store.listen(OTHER):
        await claim(other, token=OTHER)
        for _ in range(5):
            found = await subject.store.rescue(token=ME, suspects=frozenset({OTHER}))
            assert (found.absent, found.freed_queues) == (NOBODY, NOBODY)
    [stored] = (await subject.rows()).values()
    assert stored.token == OTHER


async def test_a_holder_that_comes_back_in_between_keeps_its_rows(
    subject: PostgresSubject, other: PostgresSubject
) -> None:
    await put(subject)
    async with other.store.listen(OTHER):
        await claim(other, token=OTHER)
    await until_no_one_listens(subject.engine)
    first = await subject.store.rescue(token=ME, suspects=NOBODY)
    assert first.absent == {OTHER}
    async with other.store.listen(OTHER):
        second = await subject.store.rescue(token=ME, suspects=first.absent)
    assert (second.absent, second.freed_queues) == (NOBODY, NOBODY)


async def test_nobody_counts_itself_as_absent(subject: PostgresSubject) -> None:
    # It reconnects at the moment: its own leases are its own.
    await put(subject)
    await claim(subject, token=ME)
    found = await subject.store.rescue(token=ME, suspects=frozenset({ME}))
    assert (found.absent, found.freed_queues) == (NOBODY, NOBODY)


async def test_a_holder_without_a_presence_is_judged_by_time_alone(subject: PostgresSubject) -> None:
    await put(subject, draft("long"), draft("short"))
    await claim(subject, "long", token="lease:x")
    await claim(subject, "short", token="lease:x", seconds=0)
    found = await subject.store.rescue(token=ME, suspects=frozenset({"lease:x"}))
    assert (found.absent, found.freed_queues) == (NOBODY, {"short"})


async def test_many_holders_are_told_apart(subject: PostgresSubject, other: PostgresSubject) -> None:
    tokens = [f"presence:{number}" for number in range(10)]
    for token in tokens:
        await put(subject, draft(token, key="k"))
        await claim(subject, token, token=token)
    async with other.store.listen(tokens[3]), other.store.listen(tokens[7]):
        found = await subject.store.rescue(token=tokens[0], suspects=frozenset(tokens[:5]))
    assert found.absent == set(tokens) - {tokens[0], tokens[3], tokens[7]}
    assert found.freed_queues == {tokens[1], tokens[2], tokens[4]}


async def test_concurrent_rescues_free_each_row_once(subject: PostgresSubject) -> None:
    await put(subject, *(draft(key=f"k{n}") for n in range(50)))
    await claim(subject, token=OTHER, seconds=0)
    found = await asyncio.gather(*(subject.store.rescue(token=ME, suspects=NOBODY) for _ in range(4)))
    assert [rescue.freed_queues for rescue in found].count(frozenset({"q"})) >= 1
    assert {row.deliveries_count for row in await claim(subject)} == {2}


async def test_a_listener_that_is_cut_off_raises(subject: PostgresSubject) -> None:
    async with asyncio.timeout(10), subject.store.listen(ME) as line:
        assert line is not None
        await put(subject, draft("before"))
        heard = aiter(line)
        assert await anext(heard) == "before"
        [backend] = await listening_backends(subject.engine)
        await kill(subject.engine, backend)
        with pytest.raises(ConnectionError, match="listens for new rows was lost"):
            await anext(heard)


async def test_the_presence_ends_with_the_line(subject: PostgresSubject) -> None:
    async with subject.store.listen(ME):
        assert len(await listening_backends(subject.engine)) == 1
    await until_no_one_listens(subject.engine)


async def test_a_line_that_has_gone_silent_is_given_up_for_another(
    database_url: str, outbox_table: Table, subject: PostgresSubject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL does not know of it, and keeps the first one with its presence."""
    monkeypatch.setattr(listener, "HEARTBEAT_SECONDS", 0.1)
    monkeypatch.setattr(listener, "ANSWER_SECONDS", 0.3)
    url = make_url(database_url)
    assert url.host
    async with asyncio.timeout(20), TcpProxy(url.host, url.port or 5432) as proxy:
        engine = create_async_engine(url.set(host=proxy.host, port=proxy.port), poolclass=NullPool)
        async with PostgresSubject(engine, outbox_table, None).store.listen(ME) as line:
            assert line is not None
            heard = aiter(line)
            first = asyncio.ensure_future(anext(heard))
            await asyncio.sleep(0.5)
            assert not first.done(), "the server answers"
            await put(subject, draft("q"))
            assert await first == "q"
            proxy.black_hole()
            with pytest.raises(ConnectionError, match="does not answer any more"):
                await anext(heard)
        async with subject.store.listen(ME) as line:
            assert line is not None
            assert len(await listening_backends(subject.engine)) == 2
            await put(subject, draft("again"))
            assert await anext(aiter(line)) == "again"
        assert len(await listening_backends(subject.engine)) == 1
        await engine.dispose()


async def test_a_line_whose_server_was_exchanged_behind_its_back_is_given_up(
    subject: PostgresSubject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pooler can do that, and nothing is heard any more."""
    monkeypatch.setattr(listener, "HEARTBEAT_SECONDS", 0.1)
    async with asyncio.timeout(10), subject.store.listen(ME) as line:
        assert isinstance(line, listener.PostgresListener)
        line._backend += 1
        with pytest.raises(ConnectionError, match="a pooler has put another connection"):
            await anext(aiter(line))


async def test_a_line_is_closed_while_its_server_is_asked(
    database_url: str, outbox_table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "HEARTBEAT_SECONDS", 0.1)
    url = make_url(database_url)
    assert url.host
    async with asyncio.timeout(5), TcpProxy(url.host, url.port or 5432) as proxy:
        engine = create_async_engine(url.set(host=proxy.host, port=proxy.port), poolclass=NullPool)
        async with PostgresSubject(engine, outbox_table, None).store.listen(ME) as line:
            assert line is not None
            proxy.black_hole()
            listening = asyncio.ensure_future(anext(aiter(line)))
            await asyncio.sleep(0.3)
            listening.cancel()
            with pytest.raises(asyncio.CancelledError):
                await listening
        assert not [task for task in asyncio.all_tasks() if task.get_name() == "outbox-heartbeat"]
        await engine.dispose()


async def test_a_listener_keeps_no_place_in_the_pool(database_url: str, outbox_table: Table) -> None:
    engine = create_async_engine(database_url, pool_size=1, max_overflow=0, pool_timeout=5)
    subject = PostgresSubject(engine, outbox_table, None)
    try:
        async with asyncio.timeout(10), subject.store.listen(ME) as line, subject.store.listen(OTHER):
            assert line is not None
            await put(subject)
            assert await anext(aiter(line)) == "q"
        assert engine.pool.checkedout() == 0
    finally:
        await engine.dispose()


async def test_listeners_do_not_hear_each_others_probes(subject: PostgresSubject) -> None:
    async with asyncio.timeout(10), subject.store.listen(ME) as line:
        assert line is not None
        async with subject.store.listen(OTHER):
            await put(subject, draft("q"))
        assert await anext(aiter(line)) == "q"


async def test_a_line_on_which_nothing_comes_is_no_line(
    subject: PostgresSubject, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As behind a pooler in transaction mode, for which `integration/scenarios/test_pgbouncer.py` has the real one.
    monkeypatch.setattr(listener.PostgresListener, "on_notification", lambda *_: None)
    monkeypatch.setattr(listener, "PROBE_SECONDS", 0.05)
    async with subject.store.listen(ME) as line:
        assert line is None


async def test_a_server_that_ends_idle_sessions_does_not_end_the_one_that_listens(
    engine: AsyncEngine, other: PostgresSubject
) -> None:
    async with engine.begin() as connection:
        await connection.execute(text(f"ALTER DATABASE {engine.url.database} SET idle_session_timeout = 300"))
    async with other.store.listen(OTHER) as line:
        assert line is not None
        listening = await listening_backends(engine)
        assert len(listening) == 1
        witness = await asyncpg.connect(other.engine.url.set(drivername="postgresql").render_as_string(False))
        ended = asyncio.Event()
        witness.add_termination_listener(lambda _: ended.set())
        async with asyncio.timeout(10):
            await ended.wait()
        # It has been idle for longer than the witness.
        assert await listening_backends(engine) == listening
