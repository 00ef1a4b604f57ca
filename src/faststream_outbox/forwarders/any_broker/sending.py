"""The rows of one hand-over: one after another for each key, all keys at once."""

import asyncio
from collections.abc import MutableMapping
from typing import Protocol

from faststream_outbox._engine.service import is_cancelled
from faststream_outbox._values.outcome import ACCEPTED, Deduplicated, Unsent, Verdict
from faststream_outbox._values.parcel import Parcel
from faststream_outbox.forwarders.chains import ChainSender


class Way(Protocol):
    """What sending needs of an outlet."""

    async def publish(self, parcel: Parcel) -> Deduplicated | None:
        """Send a row; raise unless the broker has it. Return a verdict where it had the row before."""

    def classify(self, error: BaseException, parcel: Parcel) -> Verdict:
        """Read what ``publish`` has raised."""

    def is_doubtful(self, error: BaseException) -> bool:
        """Return whether it may be the fault of another row that was sent together with this one."""


class RowSender(ChainSender):
    """Sends rows through an outlet.

    Args:
        outlet: Sends each row.
        verdicts: See ``ChainSender``.
    """

    def __init__(self, outlet: Way, verdicts: MutableMapping[int, Verdict]) -> None:
        super().__init__(verdicts)
        self.doubtful: list[Parcel] = []
        """Rows without a verdict, to be sent alone."""
        self.was_cut_off = False
        """Whether rows were in flight when it was cancelled."""
        self._outlet = outlet

    async def _send(self, parcel: Parcel) -> Verdict | None:
        return self._note(parcel, await self._publish(parcel))

    async def send_alone(self, parcel: Parcel) -> None:
        """Send a doubtful row again; nothing else may be in flight."""
        self._note(parcel, await self._publish(parcel, is_alone=True))

    def _note(self, parcel: Parcel, verdict: Verdict | None) -> Verdict | None:
        if verdict is None:
            self.doubtful.append(parcel)
        elif not isinstance(verdict, Unsent):
            self._verdicts[parcel.row.id] = verdict
        elif self.trouble is None:
            self.trouble = verdict.exception
        return verdict

    async def _publish(self, parcel: Parcel, *, is_alone: bool = False) -> Verdict | None:
        """Send a row; return None where another row may be at fault."""
        try:
            return await self._outlet.publish(parcel) or ACCEPTED
        except (Exception, asyncio.CancelledError) as error:
            if is_cancelled():
                self.was_cut_off = True
                raise
            if not is_alone and self._outlet.is_doubtful(error):
                return None
            return self._outlet.classify(error, parcel)
