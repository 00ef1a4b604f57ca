"""``broker.admin``: what people who run an outbox ask of it and do with it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from sqlalchemy import Table
from typing_extensions import Unpack

from faststream_outbox._store.controls import ControlStore
from faststream_outbox._store.protocol import DeadLetterStore, Examiner, Onlooker
from faststream_outbox._values.control import AuditLine, StoredPause
from faststream_outbox._values.explanation import Explanation
from faststream_outbox._values.facts import TableFacts
from faststream_outbox._values.figures import QueueFigures, RowState, SeenRow
from faststream_outbox._values.finding import Finding
from faststream_outbox._values.overview import Overview
from faststream_outbox.admin.dead_letters import DeadLetters
from faststream_outbox.admin.doctor import Doctor
from faststream_outbox.admin.pausing import NO_TABLE, ScopeOptions, check_until, check_words, of_queue, to_scope
from faststream_outbox.checks import require_count
from faststream_outbox.exceptions import ConfigError

MOST_QUEUES = 10_000
MOST_ROWS = 1000
DEFAULT_AT_MOST = 1000
DEFAULT_BODY_BYTES = 4096
ACTIONS = ("pause", "resume", "replay", "discard")


class OutboxAdmin:
    """Figures of queues, rows, dead letters, what is wrong, and pauses for all processes. No broker has to run.

    ``make_admin`` makes one without a broker. Every look takes no lock, and is bounded: a ``Count`` says whether it is
    whole. All times are the database's.

    Example::

        for figures in await broker.admin.queues():
            print(figures.queue, figures.backlog, figures.oldest_seconds)
        for finding in await broker.admin.examine():
            print(finding.grade, finding.check, finding.text)
    """

    def __init__(
        self,
        onlooker: Onlooker,
        examiner: Examiner,
        dead_letters: DeadLetterStore,
        explain: Callable[[BaseException], Explanation],
        controls: ControlStore | None = None,
    ) -> None:
        self._onlooker = onlooker
        self._examiner = examiner
        self._dead_letters = dead_letters
        self._explain = explain
        self._controls = controls

    @property
    def dead_letters(self) -> DeadLetters:
        """Rows that failed for good: look at them, send them again, or let them go."""
        return DeadLetters(self._dead_letters)

    async def queues(
        self, *, limit: int = MOST_QUEUES, at_most: int = DEFAULT_AT_MOST, behind: str = ""
    ) -> Sequence[QueueFigures]:
        """Return the figures of each queue that has rows or dead letters, in the order of their names.

        Args:
            limit: The most queues to return.
            at_most: How many rows to count in each state and shard, of which a queue has 16.
            behind: Begin with the first name after this one: the last one of the page before.

        Raises:
            ConfigError: A limit cannot be.
        """
        found = await self._onlooker.queues(
            limit=require_count("limit", limit, at_most=MOST_QUEUES),
            at_most=require_count("at_most", at_most),
            behind=behind,
        )
        if not (pauses := await self._known_pauses()):
            return found
        return [replace(each, pauses=of_queue(pauses, each.queue, each.forwarder)) for each in found]

    async def seen(
        self,
        queue: str,
        *,
        state: RowState | str = RowState.READY,
        limit: int = 20,
        max_bytes: int = DEFAULT_BODY_BYTES,
    ) -> Sequence[SeenRow]:
        """Return the first rows of a queue that are in a state.

        Args:
            queue: Its name. Copies of a forwarder with ``tee=True`` are in one of their own, as in ``orders=>redis:x``.
            state: ``ready``, ``due``, ``timer``, ``retry``, ``leased`` or ``parked``.
            limit: The most rows to return.
            max_bytes: How much to read of each payload.

        Raises:
            ConfigError: There is no such state, or a limit cannot be.
        """
        if state not in set(RowState):
            msg = f"state: must be one of {', '.join(RowState)}, got {state!r}"
            raise ConfigError(msg)
        return await self._onlooker.seen(
            queue,
            RowState(state),
            limit=require_count("limit", limit, at_most=MOST_ROWS),
            max_bytes=require_count("max_bytes", max_bytes),
        )

    async def overview(self, *, at_most: int = DEFAULT_AT_MOST) -> Overview:
        """Return what is known of the server and the tables, with the figures of the first 10,000 queues.

        Args:
            at_most: As in ``queues``.

        Raises:
            ConfigError: ``at_most`` cannot be.
        """
        return Overview(
            server=await self._examiner.server(),
            tables=await self._examiner.tables(),
            differences=await self._examiner.differences(),
            queues=await self.queues(at_most=at_most),
            pauses=await self._known_pauses(),
        )

    async def pause(
        self,
        *,
        until: datetime | timedelta | None = None,
        by: str | None = None,
        why: str | None = None,
        **options: Unpack[ScopeOptions],
    ) -> StoredPause:
        """Pause a forwarder, a queue or a key for all processes, now and after each restart.

        No handler and no forwarder takes rows of what is paused: they wait, nothing is counted, and the order of each
        key stays. Processes that listen know of it within a second, others at their next look. What a process has
        taken until then is worked off. A new pause takes the place of an earlier one of the same.

        Args:
            until: When it ends by itself: a time, or a span from now, by the database's clock. None: with ``resume``.
            by: Who says so; None: the user and the machine of this process.
            why: What for.
            **options: See ``ScopeOptions``: a forwarder, or a queue, or a key with its queue or without.

        Raises:
            ConfigError: There is no control table, or an argument cannot be.

        Example::

            await broker.admin.pause(queue="orders", until=timedelta(hours=1), by="alice", why="a bad deploy")
        """
        scope = to_scope("pause", options)
        who, why = check_words(by, why)
        return await self._control_store.pause(scope, who=who, why=why, until=check_until(until))

    async def resume(self, *, by: str | None = None, why: str | None = None, **options: Unpack[ScopeOptions]) -> bool:
        """End a pause; return whether there was one. A pause of something else stays, also of a key of the queue.

        Args:
            by: Who says so; None: the user and the machine of this process.
            why: What for.
            **options: The same as for ``pause``.

        Raises:
            ConfigError: There is no control table, or an argument cannot be.
        """
        scope = to_scope("resume", options)
        who, why = check_words(by, why)
        return bool(await self._control_store.resume(scope, who=who, why=why))

    async def pauses(self) -> Sequence[StoredPause]:
        """Return what is paused for all processes, the first pause first.

        Raises:
            ConfigError: There is no control table.
        """
        found = await self._control_store.pauses()
        if found is None:
            raise ConfigError(NO_TABLE)
        return found

    async def audit(
        self, *, limit: int = 100, before: int | None = None, action: str | None = None
    ) -> Sequence[AuditLine]:
        """Return who paused, resumed, replayed and discarded what, the last first.

        Args:
            limit: The most lines to return.
            before: Begin with the line before the one of this id: the last one of the page before.
            action: ``pause``, ``resume``, ``replay`` or ``discard``; None: all.

        Raises:
            ConfigError: There is no control table, or an argument cannot be.
        """
        if action is not None and action not in ACTIONS:
            msg = f"action: must be one of {', '.join(ACTIONS)}, got {action!r}"
            raise ConfigError(msg)
        limit = require_count("limit", limit, at_most=MOST_ROWS)
        return await self._control_store.audit(limit=limit, before=before, action=action)

    @property
    def _control_store(self) -> ControlStore:
        if self._controls is None:
            raise ConfigError(NO_TABLE)
        return self._controls

    async def _known_pauses(self) -> Sequence[StoredPause]:
        return () if self._controls is None else await self._controls.pauses() or ()

    async def has_table(self, table: Table) -> bool:
        """Return whether the database has a table of this name."""
        return await self._examiner.has_table(table)

    async def tables(self) -> Sequence[TableFacts]:
        """Return what the server's statistics say of the tables, the outbox table first."""
        return await self._examiner.tables()

    async def differences(self) -> Mapping[str, Sequence[str]]:
        """Return, for each table that is not as it is declared, in what it differs; see ``validate_schema``."""
        return await self._examiner.differences()

    async def examine(self, *, listen_seconds: float = 0.0) -> Sequence[Finding]:
        """Look for what keeps messages from flowing, or may soon.

        Compared are tables and indexes with their declarations; looked at are plans, dead rows, snapshots that are
        held, sessions that block others, connections, LISTEN, and each queue's backlog. A check that fails is a finding
        of the grade ``unknown``, and keeps no other from being made. It takes up to five seconds where notifications do
        not arrive.

        Args:
            listen_seconds: How long to listen for what processes announce. They do so once a minute: with 65 seconds,
                queues that nobody consumes are known.
        """
        doctor = Doctor(self.queues, self._known_pauses, self._examiner, self._explain)
        return await doctor.examine(listen_seconds=listen_seconds)

    def explain(self, error: BaseException) -> Explanation:
        """Return in words what an error of the database means, and what to do about it where that is known."""
        return self._explain(error)
