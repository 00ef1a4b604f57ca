"""What a lane needs of a destination."""

from collections.abc import Sequence
from typing import Protocol

from faststream_outbox._values.outcome import Verdict
from faststream_outbox._values.parcel import Parcel


class Destination(Protocol):
    """One address of one broker."""

    @property
    def is_connected(self) -> bool:
        """Whether ``connect`` has nothing to do, as far as that shows on this side."""

    async def connect(self) -> None:
        """Connect so that rows can be sent, or raise the client's error. Cheap while connected."""

    async def send(self, parcels: Sequence[Parcel]) -> Sequence[Verdict]:
        """Hand over parcels and give a verdict for each, in their order.

        No parcel of a key is accepted after an earlier one of the same hand-over, key and address was not, unless that
        one is poison. Failures are verdicts, never exceptions. When the call is cancelled, nothing that was not
        accepted by then may arrive later than the destination client's own time-out.
        """

    async def close(self) -> None:
        """Close what ``connect`` opened, and nothing else."""
