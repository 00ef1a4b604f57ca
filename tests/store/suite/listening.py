"""Listeners hear of rows when they are committed."""

import asyncio

from .subject import ME, OTHER, Subject, draft, failing, put


class Listening:
    async def test_a_listener_hears_of_rows_when_they_are_committed(self, subject: Subject) -> None:
        async with asyncio.timeout(10), subject.store.listen(ME) as line:
            assert line is not None
            heard = aiter(line)
            async with subject.transaction() as session:
                await subject.writer.insert(session, draft("first"))
                # Were the first heard of before its commit, it would come before this one.
                await put(subject, draft("second"))
            assert [await anext(heard), await anext(heard)] == ["second", "first"]

    async def test_a_listener_hears_nothing_of_what_is_rolled_back(self, subject: Subject) -> None:
        async with asyncio.timeout(10), subject.store.listen(ME) as line:
            assert line is not None
            async with failing(subject.transaction()) as session:
                await subject.writer.insert(session, draft("rolled back"))
                await subject.writer.insert_many(session, [draft("rolled back")])
            await put(subject, draft("committed"))
            assert await anext(aiter(line)) == "committed"

    async def test_a_listener_hears_of_batches(self, subject: Subject) -> None:
        async with asyncio.timeout(10), subject.store.listen(ME) as line:
            assert line is not None
            async with subject.transaction() as session:
                await subject.writer.insert_many(session, [draft("batch"), draft("batch")])
            await put(subject, draft("after"))
            heard = aiter(line)
            assert [await anext(heard), await anext(heard)] == ["batch", "after"]

    async def test_a_listener_hears_of_copies(self, subject: Subject) -> None:
        async with asyncio.timeout(10), subject.store.listen(ME) as line:
            assert line is not None
            heard = aiter(line)
            async with subject.transaction() as session:
                await subject.writer.insert(session, draft()._replace(copies=("q=>a", "q=>b")))
            assert {await anext(heard) for _ in range(3)} == {"q", "q=>a", "q=>b"}

    async def test_all_listeners_hear(self, subject: Subject) -> None:
        async with asyncio.timeout(10), subject.store.listen(ME) as mine, subject.store.listen(OTHER) as other:
            assert mine is not None
            assert other is not None
            await put(subject, draft("q"))
            assert [await anext(aiter(mine)), await anext(aiter(other))] == ["q", "q"]
