"""Looks for what keeps messages from flowing, or may soon."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeAlias

from faststream_outbox._store.protocol import Examiner
from faststream_outbox._values.control import StoredPause
from faststream_outbox._values.explanation import Explanation
from faststream_outbox._values.figures import QueueFigures
from faststream_outbox._values.finding import Finding, Grade
from faststream_outbox._values.overview import is_standing
from faststream_outbox.admin import judging

SNAPSHOT_SECONDS = 300.0
"""Reports take minutes; a snapshot that is held for longer lets the table grow."""

CHECK_SECONDS = 5.0
"""A check that takes longer waits for a lock, most likely: the others go on."""

SILENCE_SECONDS = 10.0
"""What the look for notifications may take longer: it waits for one that a pooler does not let through."""

MOST_QUEUES = 1000
AT_MOST = 1000
MOST_STANDING = 20
"""Queues with an old backlog of which the holders of shards are looked for."""

SOME_QUEUE = "queue"
"""Plans are made for this one where no queue has rows."""

Check: TypeAlias = Callable[[], Awaitable[Sequence[Finding]]]


class Doctor:
    """Makes one check after the other. What is found is judged in ``judging``.

    Args:
        queues: Counts rows, as ``OutboxAdmin.queues`` does.
        pauses: Returns what is paused for all processes.
        examiner: Asks the database.
        explain: Puts errors into words.
    """

    def __init__(
        self,
        queues: Callable[..., Awaitable[Sequence[QueueFigures]]],
        pauses: Callable[[], Awaitable[Sequence[StoredPause]]],
        examiner: Examiner,
        explain: Callable[[BaseException], Explanation],
    ) -> None:
        self._count_queues = queues
        self._pauses = pauses
        self._examiner = examiner
        self._explain = explain
        self._queues: Sequence[QueueFigures] = ()

    async def examine(self, *, listen_seconds: float) -> Sequence[Finding]:
        """Return what the checks have found; see ``OutboxAdmin.examine``."""

        async def listen() -> Sequence[Finding]:
            return judging.listening(
                await self._examiner.consumed(seconds=listen_seconds), self._queues, listen_seconds
            )

        # Queues come before what is judged by them.
        checks: Mapping[str, Check] = {
            "blockers": self._blockers,
            "server": self._server,
            "tables": self._tables,
            "indexes": self._indexes,
            "pauses": self._look_at_pauses,
            "queues": self._look_at_queues,
            "statistics": self._statistics,
            "snapshots": self._snapshots,
            "listen": listen,
        }
        findings: list[Finding] = []
        for name, check in checks.items():
            more = listen_seconds + SILENCE_SECONDS if check is listen else 0.0
            findings += await self._make(name, check, seconds=CHECK_SECONDS + more)
        return findings

    async def _make(self, name: str, check: Check, *, seconds: float) -> Sequence[Finding]:
        try:
            async with asyncio.timeout(seconds):
                return await check()
        except Exception as error:  # noqa: BLE001 - one check that fails keeps no other from being made
            text = f"it could not be looked at: {self._explain(error).text}"
            return [Finding(check=name, grade=Grade.UNKNOWN, text=text)]

    async def _server(self) -> Sequence[Finding]:
        return judging.server(await self._examiner.server())

    async def _tables(self) -> Sequence[Finding]:
        return judging.tables(await self._examiner.differences())

    async def _indexes(self) -> Sequence[Finding]:
        return judging.indexes(self._examiner.declared_indexes(), await self._examiner.indexes())

    async def _look_at_pauses(self) -> Sequence[Finding]:
        return judging.pauses(await self._pauses())

    async def _look_at_queues(self) -> Sequence[Finding]:
        self._queues = await self._count_queues(limit=MOST_QUEUES, at_most=AT_MOST)
        findings = list(judging.queues(self._queues))
        standing = [figures for figures in self._queues if is_standing(figures)]
        for figures in standing[:MOST_STANDING]:
            findings += judging.holders(figures, await self._examiner.holders(figures.queue))
        return findings

    async def _blockers(self) -> Sequence[Finding]:
        return judging.blockers(await self._examiner.blockers())

    async def _statistics(self) -> Sequence[Finding]:
        facts = await self._examiner.tables()
        longest = max(self._queues, key=lambda figures: figures.backlog.rows, default=None)

        async def plans() -> Sequence[Finding]:
            found = await self._examiner.plans(SOME_QUEUE if longest is None else longest.queue)
            return judging.plans(found, estimated_rows=facts[0].estimated_rows if facts else 0)

        return [*judging.statistics(facts), *await self._make("plans", plans, seconds=CHECK_SECONDS)]

    async def _snapshots(self) -> Sequence[Finding]:
        return judging.snapshots(await self._examiner.snapshots(seconds=SNAPSHOT_SECONDS))
