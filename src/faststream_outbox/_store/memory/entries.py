"""Entries of inboxes in memory, for tests."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from faststream_outbox._store.entries import Entry

FAILED = frozenset({"NACKED", "REJECTED"})
"""What FastStream calls the end of a delivery whose transaction was rolled back."""


@dataclass(frozen=True, slots=True)
class _Acceptance:
    delivery: Any
    at: datetime

    @property
    def is_undone(self) -> bool:
        return getattr(self.delivery, "committed", None) in FAILED


class MemoryEntries:
    """Keeps entries as long as a test runs. There are no transactions: a delivery that failed takes its entry back."""

    def __init__(self) -> None:
        self._acceptances: dict[Entry, _Acceptance] = {}

    @property
    def entries(self) -> list[Entry]:
        """What is accepted, in the order of acceptance."""
        return [entry for entry, acceptance in self._acceptances.items() if not acceptance.is_undone]

    async def enter(self, session: Any, entry: Entry, delivery: Any) -> bool:
        """Note an entry; return whether it was not there."""
        return self.enter_sync(session, entry, delivery)

    def enter_sync(self, session: Any, entry: Entry, delivery: Any) -> bool:
        """Note an entry; return whether it was not there."""
        acceptance = self._acceptances.get(entry)
        if acceptance is not None and not acceptance.is_undone:
            return False
        self._acceptances.pop(entry, None)
        self._acceptances[entry] = _Acceptance(delivery, datetime.now(UTC))
        return True

    async def prune(self, database: Any, consumer: str, *, older_than: timedelta, batch_size: int) -> int:
        """Forget a consumer's entries that are older than a span; return how many."""
        limit = datetime.now(UTC) - older_than
        old = [entry for entry, each in self._acceptances.items() if entry.consumer == consumer and each.at < limit]
        for entry in old:
            del self._acceptances[entry]
        return len(old)

    async def differences(self, engine: Any) -> list[str]:
        """Return nothing: there is no table."""
        return []
