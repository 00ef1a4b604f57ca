"""Carries rows from the table to a destination."""

import asyncio
import time
from collections.abc import Sequence

from faststream_outbox._engine.backoff import Backoff
from faststream_outbox._engine.destination import Destination
from faststream_outbox._engine.failure import FailurePolicy
from faststream_outbox._engine.health import Health
from faststream_outbox._engine.pacer import Pacer
from faststream_outbox._engine.rounds import Rounds
from faststream_outbox._engine.service import Service
from faststream_outbox._engine.wakeups import Wakeup
from faststream_outbox._store.protocol import Store
from faststream_outbox._values.outcome import (
    Accepted,
    Dead,
    Delivered,
    Outcome,
    Poison,
    Refused,
    Settlement,
    Unsent,
    Verdict,
    describe,
)
from faststream_outbox._values.row import OutboxRow


class Lane(Service):
    """One hand-over at a time: lock rows, send them, write the outcomes, commit.

    The rows are held by row locks of one short transaction. When the process dies, PostgreSQL gives them back at once.

    Args:
        name: The forwarder's name with the lane's number.
        store: Where rows are.
        destination: Where they go.
        rounds: The places to take rows from.
        wakeup: Rings when there may be new rows.
        pacer: Decides when to look again.
        failure: Decides what becomes of refused rows.
        batch_size: The most rows of one hand-over.
        send_timeout: Seconds after which a hand-over is given up; its rows are sent again later.
        health: The database's.
    """

    def __init__(
        self,
        name: str,
        *,
        store: Store,
        destination: Destination,
        rounds: Rounds,
        wakeup: Wakeup,
        pacer: Pacer,
        failure: FailurePolicy,
        batch_size: int,
        send_timeout: float,
        health: Health,
    ) -> None:
        super().__init__(f"outbox-lane-{name}", health)
        self._store = store
        self._destination = destination
        self._rounds = rounds
        self._wakeup = wakeup
        self._pacer = pacer
        self._failure = failure
        self._batch_size = batch_size
        self._send_timeout = send_timeout
        self._probing = Backoff()
        self._found = False
        self._sent_at = 0.0

    def interrupt(self) -> None:
        self._wakeup.ring()

    async def run_once(self) -> None:
        if not await self._is_destination_up():
            return
        self._pacer.begin_look()
        verdicts: Sequence[Verdict] = ()
        async with self._store.hand_over(self._rounds.next(), limit=self._batch_size) as hand_over:
            self.health.recovered()
            if hand_over is not None:
                self._rounds.visited(hand_over.place)
                verdicts = await self._send(hand_over.rows)
                await hand_over.settle(self._settlements(hand_over.rows, verdicts))
                if not any(_is_final(verdict) for verdict in verdicts):
                    self._rounds.fruitless(hand_over.place)
        # From here on the transaction is over: while the lane rests, its rows and its connection are free.
        self._found = self._found or bool(verdicts)
        await self._after_verdicts(verdicts)
        if hand_over is None:
            self._rounds.finish()
            await self._pacer.rest(found=self._found)
            self._found = False

    async def _is_destination_up(self) -> bool:
        try:
            async with asyncio.timeout(self._send_timeout):
                await self._destination.connect()
        except Exception as error:  # noqa: BLE001 - whatever it is, it keeps rows from being sent
            await self._destination_failed(error)
            return False
        return True

    async def _send(self, rows: Sequence[OutboxRow]) -> Sequence[Verdict]:
        if not rows:
            return ()
        self._sent_at = time.monotonic()
        try:
            async with asyncio.timeout(self._send_timeout):
                return await self._destination.send(rows)
        except TimeoutError as error:
            # The outcome is unknown: the rows stay and are sent again with the same keys.
            return [Unsent(error)] * len(rows)

    async def _after_verdicts(self, verdicts: Sequence[Verdict]) -> None:
        trouble = next((v.exception for v in verdicts if isinstance(v, Unsent) and v.exception is not None), None)
        if trouble is not None:
            await self._destination_failed(trouble)
        elif any(isinstance(verdict, Accepted) for verdict in verdicts):
            self._probing.reset()
            self._destination.health.recovered()

    async def _destination_failed(self, error: BaseException) -> None:
        self._destination.health.failed(error)
        await self.sleep(self._probing.next())

    def _settlements(self, rows: Sequence[OutboxRow], verdicts: Sequence[Verdict]) -> list[Settlement]:
        elapsed = time.monotonic() - self._sent_at
        outcomes = ((row, self._outcome(row, verdict, elapsed)) for row, verdict in zip(rows, verdicts, strict=True))
        return [Settlement(row, outcome) for row, outcome in outcomes if outcome is not None]

    def _outcome(self, row: OutboxRow, verdict: Verdict, elapsed: float) -> Outcome | None:
        match verdict:
            case Accepted():
                return Delivered()
            case Refused(exception):
                return self._failure.after_failure(row, exception, elapsed=elapsed)
            case Poison(reason, exception):
                return Dead(reason, describe(exception))
            case Unsent():
                return None


def _is_final(verdict: Verdict) -> bool:
    return not isinstance(verdict, Unsent)
