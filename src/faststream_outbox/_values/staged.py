"""What ``stage`` gives at once, before there is a row."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(slots=True, eq=False)
class StagedMessage:
    """A message that waits for its session's flush or commit; only to be read.

    Example::

        staged = broker.stage({"order_id": 1}, queue="orders", session=session)
        await session.commit()
        assert staged.is_written and staged.id is not None
    """

    queue: str
    """Where it goes."""
    idempotency_key: str
    """Its identity, the caller's or a new UUIDv7."""
    is_written: bool = False
    """Whether the session has written it. False once more after a rollback, which takes the row back."""
    id: int | None = None
    """The row's id. None until it is written, and after that where a live row of the queue was in its place."""


class Noted(Protocol):
    """Hears what one statement has written to a queue."""

    def __call__(self, queue: str, *, rows: int, duplicates: int, seconds: float) -> None:
        """Note rows, messages that live rows stood in the place of, and how long the statement took."""
