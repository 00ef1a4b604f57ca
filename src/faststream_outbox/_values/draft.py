"""What is about to become a row: checked, encoded, not yet written."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import NamedTuple


class Draft(NamedTuple):
    """A checked message, ready to be inserted. Bad input never gets this far: see ``Drafter``."""

    queue: str
    key: str | None
    idempotency_key: str
    deduplicate: bool
    payload: bytes
    headers: Mapping[str, str] = MappingProxyType({})
    """Drafts of one call may share one mapping."""
    activate_in: timedelta | None = None
    activate_at: datetime | None = None
    timer_id: str | None = None
    copies: Sequence[str] = ()
    """Queues that get a row of their own for the same message."""
    moves_timer: bool = False
    """Whether it takes the place of a live timer of its ``timer_id``, which otherwise makes it a duplicate."""
