"""What processes say of themselves on the channel for new rows: which queues they consume."""

import json
from collections.abc import Iterable, Iterator

from faststream_outbox._store.protocol import Announcement, PausesChanged
from faststream_outbox._values.copies import SEPARATOR

PREFIX = f"{SEPARATOR}consumes:"
"""No queue's name begins so, and a process of an older release passes over it as over a probe."""

PAUSES_CHANGED = f"{SEPARATOR}pauses"
"""What is sent when somebody pauses or resumes; the control table says what."""

MAX_PAYLOAD_BYTES = 7900
"""PostgreSQL takes notifications of less than 8000 bytes ("NOTIFY" in its manual)."""


def payloads_of(queues: Iterable[str]) -> Iterator[str]:
    """Write queues' names into as many notifications as it takes; none where there are no queues."""
    names: list[str] = []
    size = 0
    for queue in queues:
        # Brackets and a comma with each, which is more than there will be.
        needed = len(json.dumps(queue).encode()) + 2
        if names and size + needed > MAX_PAYLOAD_BYTES - len(PREFIX):
            yield PREFIX + json.dumps(names)
            names, size = [], 0
        names.append(queue)
        size += needed
    if names:
        yield PREFIX + json.dumps(names)


def read(payload: str) -> Announcement | PausesChanged | None:
    """Read a notification; None if it is no announcement, or not one of this package."""
    if payload == PAUSES_CHANGED:
        return PausesChanged()
    if not payload.startswith(PREFIX):
        return None
    try:
        names = json.loads(payload.removeprefix(PREFIX))
    except ValueError:
        return None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return None
    return Announcement(frozenset(names))
