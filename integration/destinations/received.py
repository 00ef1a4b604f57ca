"""Messages as they arrived, and what must hold of them."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

IDENTITY = "idempotency-key"


class Received(NamedTuple):
    """A message as a plain client of the destination's sees it."""

    place: int
    """Where it is, a partition for instance: messages of one place are in an order."""
    key: str | None
    body: bytes
    headers: dict[str, str]
    """All of them but the one that has the key."""

    @property
    def row_id(self) -> int:
        return int(self.headers["outbox-id"])

    @property
    def identity(self) -> str:
        return self.headers[IDENTITY]


def without_repeats(messages: Sequence[Received]) -> list[Received]:
    """The first of each idempotency key, as an inbox would let through; repeats must be the same."""
    first: dict[str, Received] = {}
    for message in messages:
        kept = first.setdefault(message.identity, message)
        # Where there are several places, a message without a key may go to any of them.
        assert kept == (message if message.key is not None else message._replace(place=kept.place))
    return list(first.values())


def check_order(messages: Sequence[Received]) -> None:
    """Rows of a key are in one place, in the order of their ids."""
    by_key: defaultdict[str | None, list[Received]] = defaultdict(list)
    for message in messages:
        by_key[message.key].append(message)
    for key, its_messages in by_key.items():
        if key is None:
            continue
        assert len({message.place for message in its_messages}) == 1, key
        ids = [message.row_id for message in its_messages]
        assert ids == sorted(ids), f"{key!r} out of order"


def check_complete(messages: Sequence[Received], ids: Iterable[int]) -> None:
    """Every row once, in order, after repeats are removed."""
    unique = without_repeats(messages)
    assert sorted(message.row_id for message in unique) == sorted(ids)
    check_order(unique)
