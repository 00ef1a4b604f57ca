"""Parts the rows of a hand-over into what must go one after another."""

from collections import deque
from collections.abc import Iterable
from typing import TypeAlias

from faststream_outbox._values.parcel import Parcel

Chain: TypeAlias = deque[Parcel]
"""Rows of one key in their order."""


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
