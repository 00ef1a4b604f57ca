"""The seam behind pauses that are stored and the audit log, in PostgreSQL and in memory."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Protocol

from faststream_outbox._values.control import AuditLine, Scope, StoredPause


class ControlStore(Protocol):
    """Where pauses and the audit log are kept. Every method is one transaction of its own."""

    async def pauses(self) -> Sequence[StoredPause] | None:
        """Return the pauses that are in force, the first first; None where there is no such table."""

    async def pause(
        self, scope: Scope, *, who: str, why: str | None, until: datetime | timedelta | None
    ) -> StoredPause:
        """Pause for all processes, in place of an earlier pause of the same; and wake all that listen.

        Raises:
            ConfigError: The time when it is to end has passed.
        """

    async def resume(self, scope: Scope, *, who: str, why: str | None) -> int:
        """End the pauses of just this scope, and wake all that listen; return how many there were."""

    async def audit(self, *, limit: int, before: int | None, action: str | None) -> Sequence[AuditLine]:
        """Return lines of the audit log, the last first: those before a line, and of one action."""
