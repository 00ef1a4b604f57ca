"""Pauses and the audit log in memory."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from faststream_outbox._store.memory.records import utc_now
from faststream_outbox._values.control import AuditLine, Note, Scope, StoredPause
from faststream_outbox.exceptions import ConfigError


class MemoryControls:
    """The control table in memory.

    Args:
        changed: Called when a pause begins or ends.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._lines: dict[int, AuditLine] = {}
        self._ids = itertools.count(1)

    async def pauses(self) -> Sequence[StoredPause] | None:
        now = utc_now()
        return [_to_pause(line, now) for line in self._in_force(now)]

    async def pause(
        self, scope: Scope, *, who: str, why: str | None, until: datetime | timedelta | None
    ) -> StoredPause:
        now = utc_now()
        end = now + until if isinstance(until, timedelta) else until
        if end is not None and end <= now:
            msg = f"until: {until} has passed"
            raise ConfigError(msg)
        self._end(scope, now)
        line = self._add(Note(action="pause", what=scope.given(), who=who, why=why), at=now, until=end)
        self._changed()
        return _to_pause(line, now)

    async def resume(self, scope: Scope, *, who: str, why: str | None) -> int:
        now = utc_now()
        if ended := self._end(scope, now):
            self._add(Note(action="resume", what=scope.given(), who=who, why=why), at=now, affected=ended)
            self._changed()
        return ended

    async def audit(self, *, limit: int, before: int | None, action: str | None) -> Sequence[AuditLine]:
        chosen = (
            line
            for line in reversed(self._lines.values())
            if (before is None or line.id < before) and action in {None, line.action}
        )
        return [*itertools.islice(chosen, limit)]

    def note(self, note: Note, *, affected: int) -> None:
        """Write down what is done, and to how many."""
        if (before := self._lines.get(note.line or 0)) is not None:
            self._lines[before.id] = replace(before, affected=before.affected + affected)
        else:
            note.line = self._add(note, at=utc_now(), affected=affected).id

    def _in_force(self, now: datetime) -> list[AuditLine]:
        pauses = (line for line in self._lines.values() if line.action == "pause" and line.ended_at is None)
        return [line for line in pauses if line.until is None or line.until > now]

    def _end(self, scope: Scope, now: datetime) -> int:
        ended = [line for line in self._in_force(now) if line.what == scope.given()]
        for line in ended:
            self._lines[line.id] = replace(line, ended_at=now)
        return len(ended)

    def _add(self, note: Note, *, at: datetime, affected: int = 0, until: datetime | None = None) -> AuditLine:
        line = AuditLine(
            id=next(self._ids),
            at=at,
            who=note.who,
            action=note.action,
            what=note.what,
            why=note.why,
            affected=affected,
            until=until,
        )
        self._lines[line.id] = line
        return line


def _to_pause(line: AuditLine, now: datetime) -> StoredPause:
    return StoredPause(
        scope=Scope(**line.what),
        who=line.who,
        why=line.why,
        since=line.at,
        until=line.until,
        seconds_left=None if line.until is None else (line.until - now).total_seconds(),
    )
