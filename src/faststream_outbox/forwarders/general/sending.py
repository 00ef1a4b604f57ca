"""The rows of one hand-over: one after another for each key, all keys at once."""

import asyncio
from collections import deque
from collections.abc import MutableMapping, Sequence
from typing import Protocol

from faststream_outbox._engine.service import is_cancelled
from faststream_outbox._values.outcome import ACCEPTED, Accepted, Poison, Unsent, Verdict
from faststream_outbox._values.parcel import Parcel
from faststream_outbox.forwarders.chains import Chain, chains_of

MOST_IN_FLIGHT = 256


class Sends(Protocol):
    """What sending needs of an outlet."""

    async def publish(self, parcel: Parcel) -> None:
        """Send a row; raise unless the broker has it."""

    def classify(self, error: BaseException, parcel: Parcel) -> Verdict:
        """Read what ``publish`` has raised."""

    def is_doubtful(self, error: BaseException) -> bool:
        """Tell whether it may be the fault of another row that was sent together with this one."""


class Sending:
    """The next row of a key is sent when the one before has its answer.

    Args:
        outlet: Sends rows.
        verdicts: Takes a verdict for each row, under the row's id, as soon as it is known.
    """

    def __init__(self, outlet: Sends, verdicts: MutableMapping[int, Verdict]) -> None:
        self.trouble: BaseException | None = None
        """Why it has ended before all rows were sent."""
        self.doubtful: list[Parcel] = []
        """Rows without a verdict, to be sent alone."""
        self.was_cut_off = False
        """Whether rows were in flight when it was cancelled."""
        self._outlet = outlet
        self._verdicts = verdicts

    async def send(self, parcels: Sequence[Parcel]) -> None:
        """Send rows; one without a verdict afterwards stands behind another one of its key, or behind the trouble."""
        ready = deque(chains_of(parcels))
        async with asyncio.TaskGroup() as group:
            for _ in range(min(len(ready), MOST_IN_FLIGHT)):
                group.create_task(self._work(ready))

    async def _work(self, ready: deque[Chain]) -> None:
        while ready:
            for parcel in ready.popleft():
                if self.trouble is not None:
                    return
                verdict = await self._send(parcel)
                if verdict is None:
                    self.doubtful.append(parcel)
                elif not self._note(parcel, verdict):
                    return
                if not isinstance(verdict, Accepted | Poison):
                    break

    async def send_alone(self, parcel: Parcel) -> None:
        """Send a doubtful row again; nothing else may be in flight."""
        verdict = await self._send(parcel, is_alone=True)
        if verdict is not None:
            self._note(parcel, verdict)

    def _note(self, parcel: Parcel, verdict: Verdict) -> bool:
        """Keep a verdict; tell whether more can be sent."""
        if isinstance(verdict, Unsent):
            if self.trouble is None:
                self.trouble = verdict.exception
            return False
        self._verdicts[parcel.row.id] = verdict
        return True

    async def _send(self, parcel: Parcel, *, is_alone: bool = False) -> Verdict | None:
        """Send a row; None where another one may be at fault."""
        try:
            await self._outlet.publish(parcel)
        except (Exception, asyncio.CancelledError) as error:
            if is_cancelled():
                self.was_cut_off = True
                raise
            if not is_alone and self._outlet.is_doubtful(error):
                return None
            return self._outlet.classify(error, parcel)
        return ACCEPTED
