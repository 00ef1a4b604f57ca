"""Writes outcomes: one statement for each kind, however many rows."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection

from faststream_outbox._store.postgres.driver import DriverStatement
from faststream_outbox._store.postgres.statements import Statements
from faststream_outbox._values.outcome import Dead, Delivered, Outcome, Released, Retry, Settlement
from faststream_outbox._values.row import OutboxRow


class Way(NamedTuple):
    """Which outcomes a statement writes, and which of their parts it takes under which name."""

    kind: type[Outcome]
    statement: DriverStatement
    parts: Mapping[str, str]
    is_meant: Callable[[Any], bool] = lambda _outcome: True
    """Of those of its kind."""


class Settling:
    """Writes outcomes to one pair of tables.

    Args:
        statements: For these tables.
    """

    def __init__(self, statements: Statements) -> None:
        reason = {"reasons": "reason", "exceptions": "exception"}
        held = {**reason, "holds": "holds_key"}
        moved = statements.settle_dead_moved
        self._ways = [
            Way(Delivered, statements.settle_delivered, {}),
            Way(Retry, statements.settle_retry, {"delays": "delay", "exceptions": "exception"}),
            Way(Dead, statements.settle_dead_parked, held, lambda dead: moved is None or dead.holds_key),
            Way(Released, statements.settle_released, {"started": "started"}),
        ]
        if moved is not None:
            self._ways.append(Way(Dead, moved, reason, lambda dead: not dead.holds_key))

    async def write(self, connection: AsyncConnection, settlements: Sequence[Settlement], *, token: str | None) -> None:
        """Write outcomes. A row that this token and delivery no longer hold is left alone."""
        by_kind: defaultdict[type[Outcome], list[Settlement]] = defaultdict(list)
        for settlement in settlements:
            by_kind[type(settlement.outcome)].append(settlement)
        for way in self._ways:
            chosen = [each for each in by_kind[way.kind] if way.is_meant(each.outcome)]
            if chosen:
                parameters: dict[str, Any] = {**fence([row for row, _ in chosen]), "token": token}
                for name, part in way.parts.items():
                    parameters[name] = [getattr(outcome, part) for _, outcome in chosen]
                await connection.run_sync(way.statement.execute, parameters)


def fence(rows: Sequence[OutboxRow]) -> dict[str, Any]:
    """Give the parameters by which a statement finds rows, and by which a stale holder's writes match nothing."""
    return {"ids": [row.id for row in rows], "deliveries": [row.deliveries_count for row in rows]}
