"""Dead letters of the store in memory."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from faststream_outbox._store.memory.records import utc_now
from faststream_outbox._store.memory.store import MemoryStore
from faststream_outbox._values.control import Note
from faststream_outbox._values.dead_letter import DeadLetter, Selection
from faststream_outbox._values.figures import Count, DeadLetterGroup, DeadLetterGroups
from faststream_outbox.checks import MAX_COUNT


class MemoryDeadLetters:
    """The rows of a ``MemoryStore`` that failed for good; sessions are ignored."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    async def list(
        self, session: Any, selection: Selection, *, limit: int, max_bytes: int = MAX_COUNT
    ) -> Sequence[DeadLetter]:
        return [
            replace(letter, row=letter.row._replace(payload=letter.row.payload[:max_bytes]))
            for letter in self._selected(selection)[:limit]
        ]

    async def count(self, session: Any, selection: Selection) -> int:
        return len(self._selected(selection))

    async def groups(self, session: Any, selection: Selection, *, limit: int, at_most: int) -> DeadLetterGroups:
        looked_at = self._selected(selection)[:at_most]
        groups: dict[tuple[str, str, str], list[DeadLetter]] = {}
        for letter in looked_at:
            groups.setdefault((letter.row.queue, letter.reason, _kind(letter) or ""), []).append(letter)
        found = [_group(*members) for members in groups.values()]
        found.sort(key=lambda group: (-group.count, group.queue, group.reason, group.kind or ""))
        return DeadLetterGroups(
            groups=found[:limit], looked_at=Count(len(looked_at), is_whole=len(looked_at) < at_most)
        )

    async def replay(self, session: Any, selection: Selection, *, limit: int, note: Note | None = None) -> int:
        ids = self._ids(selection)[:limit]
        self._store.revive(ids)
        return self._noted(ids, note)

    async def discard(self, session: Any, selection: Selection, *, limit: int, note: Note | None = None) -> int:
        ids = self._ids(selection)[:limit]
        self._store.discard(ids)
        return self._noted(ids, note)

    def _noted(self, ids: Sequence[int], note: Note | None) -> int:
        if ids and note is not None:
            self._store.controls.note(note, affected=len(ids))
        return len(ids)

    async def now(self) -> datetime:
        return utc_now()

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
                size=len(row.payload),
            )
            for row, dead in self._store.dead_letters
        ]
        chosen = (letter for letter in letters if _agrees(letter, selection))
        return sorted(chosen, key=lambda letter: (letter.failed_at, letter.row.id))


def _kind(letter: DeadLetter) -> str | None:
    return None if letter.exception is None else letter.exception.partition("\n")[0].partition(":")[0]


def _group(*letters: DeadLetter) -> DeadLetterGroup:
    texts = [letter.exception for letter in letters if letter.exception is not None]
    return DeadLetterGroup(
        queue=letters[0].row.queue,
        reason=letters[0].reason,
        kind=_kind(letters[0]),
        count=len(letters),
        held=sum(letter.holds_key for letter in letters),
        first_failed_at=min(letter.failed_at for letter in letters),
        last_failed_at=max(letter.failed_at for letter in letters),
        example=min(texts, default=None),
    )


def _agrees(letter: DeadLetter, selection: Selection) -> bool:
    return (
        selection.queue in (None, letter.row.queue)
        and selection.key in (None, letter.row.key)
        and selection.reason in (None, letter.reason)
        and (selection.failed_after is None or letter.failed_at >= selection.failed_after)
        and (selection.failed_before is None or letter.failed_at < selection.failed_before)
        and (selection.older_than is None or letter.failed_at < utc_now() - selection.older_than)
        and (selection.exception is None or selection.exception in (letter.exception or ""))
        and selection.kind in (None, _kind(letter) or "")
        and (selection.ids is None or letter.row.id in selection.ids)
    )
