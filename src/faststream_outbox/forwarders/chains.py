"""Sends rows one by one for each key, all keys at once: for destinations that answer to each row alone."""

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Collection, Iterable, MutableMapping, Sequence
from typing import TypeAlias

from faststream_outbox._values.outcome import Accepted, Poison, Verdict
from faststream_outbox._values.parcel import Parcel

MOST_IN_FLIGHT = 256

Chain: TypeAlias = deque[Parcel]
"""Rows of one key in their order."""


class ChainSender(ABC):
    """The next row of a key is sent when the one before has its answer.

    Args:
        verdicts: Takes a verdict for each row, under the row's id, as soon as it is known.
    """

    def __init__(self, verdicts: MutableMapping[int, Verdict]) -> None:
        self.trouble: BaseException | None = None
        """Why it has ended before all rows were sent."""
        self._verdicts = verdicts

    async def send(self, parcels: Sequence[Parcel]) -> None:
        """Send parcels; those without a verdict afterwards wait behind another one of their key, or behind trouble."""
        ready = deque(chains_of(parcels))
        async with asyncio.TaskGroup() as group:
            workers = [group.create_task(self._work(ready)) for _ in range(min(len(ready), MOST_IN_FLIGHT))]
            await self._watch(workers)

    async def _watch(self, workers: Collection[asyncio.Task[None]]) -> None:
        """Wait for those that send."""
        if workers:
            await asyncio.wait(workers)

    async def _work(self, ready: deque[Chain]) -> None:
        while ready:
            for parcel in ready.popleft():
                if self.trouble is not None:
                    return
                if not isinstance(await self._send(parcel), Accepted | Poison):
                    break

    @abstractmethod
    async def _send(self, parcel: Parcel) -> Verdict | None:
        """Send a parcel, note its verdict and return it; None where there is none, and its key must wait.

        Where nothing more can be sent, ``trouble`` says why.
        """


def chains_of(parcels: Iterable[Parcel]) -> list[Chain]:
    """Part rows by key; each row without one is on its own."""
    chains: list[Chain] = []
    by_key: dict[str, Chain] = {}
    for parcel in parcels:
        key = parcel.row.key
        if key is not None and key in by_key:
            by_key[key].append(parcel)
            continue
        chain = deque([parcel])
        chains.append(chain)
        if key is not None:
            by_key[key] = chain
    return chains
