"""Around a destination: says when it keeps its lane waiting."""

from collections.abc import Sequence

from faststream_outbox._engine.relaying.patience import Patience
from faststream_outbox._values.outcome import Verdict
from faststream_outbox._values.parcel import Parcel
from faststream_outbox.forwarders.kinds import LaneDestination


class PatientDestination:
    """A destination that logs once that it keeps its lane waiting.

    Args:
        destination: Where rows are sent.
        patience: What the lanes of a forwarder share.
    """

    def __init__(self, destination: LaneDestination, patience: Patience) -> None:
        self._destination = destination
        self._patience = patience

    @property
    def is_connected(self) -> bool:
        return self._destination.is_connected

    async def connect(self) -> None:
        with self._patience.waiting("no connection"):
            await self._destination.connect()

    async def send(self, parcels: Sequence[Parcel]) -> Sequence[Verdict]:
        with self._patience.waiting(f"no answer on {len(parcels)} row{'s' if len(parcels) > 1 else ''}"):
            return await self._destination.send(parcels)

    def finish(self, grace: float) -> None:
        self._destination.finish(grace)

    async def close(self) -> None:
        await self._destination.close()
