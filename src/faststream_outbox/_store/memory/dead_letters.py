"""Dead letters of the store in memory."""

from collections.abc import Sequence
from typing import Any

from faststream_outbox._store.memory.store import MemoryStore
from faststream_outbox._values.dead_letter import DeadLetter, Selection


class MemoryDeadLetters:
    """The rows of a ``MemoryStore`` that failed for good; sessions are ignored."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    async def list(self, session: Any, selection: Selection, *, limit: int) -> Sequence[DeadLetter]:
        return self._selected(selection)[:limit]

    async def count(self, session: Any, selection: Selection) -> int:
        return len(self._selected(selection))

    async def replay(self, session: Any, selection: Selection, *, limit: int) -> int:
        ids = self._ids(selection)[:limit]
        self._store.revive(ids)
        return len(ids)

    async def discard(self, session: Any, selection: Selection, *, limit: int) -> int:
        ids = self._ids(selection)[:limit]
        self._store.discard(ids)
        return len(ids)

    def _ids(self, selection: Selection) -> Sequence[int]:
        return sorted(letter.row.id for letter in self._selected(selection))

    def _selected(self, selection: Selection) -> Sequence[DeadLetter]:
        letters = [
            DeadLetter(
                row=row,
                # The last attempt is the one that it died of.
                failed_at=row.last_attempt_at or row.created_at,
                reason=dead.reason,
                exception=dead.exception,
                holds_key=dead.holds_key,
            )
            for row, dead in self._store.dead_letters
        ]
        chosen = (letter for letter in letters if _agrees(letter, selection))
        return sorted(chosen, key=lambda letter: (letter.failed_at, letter.row.id))


def _agrees(letter: DeadLetter, selection: Selection) -> bool:
    return (
        selection.queue in (None, letter.row.queue)
        and selection.key in (None, letter.row.key)
        and selection.reason in (None, letter.reason)
        and (selection.failed_after is None or letter.failed_at >= selection.failed_after)
        and (selection.failed_before is None or letter.failed_at < selection.failed_before)
    )
