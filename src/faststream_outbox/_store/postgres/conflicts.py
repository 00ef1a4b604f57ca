"""What to do about a message of which ON CONFLICT DO NOTHING has written no row."""

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from faststream_outbox._store.postgres.statements import Statements
from faststream_outbox._values.draft import Draft
from faststream_outbox.exceptions import NotWrittenError

TRIES = 5
"""To move a timer that handlers take and finish again and again."""


class Conflicts:
    """Tells live duplicates from what else was in the way, and lets nothing but these pass.

    A message has two identities, and ON CONFLICT takes one arbiter; so it is given none, and skips a row for every
    unique index: of the primary key too, where the sequence is behind the ids, and of the owner's own.

    Args:
        statements: For the table.
        parameters: Makes those of an INSERT of one row.
    """

    def __init__(self, statements: Statements, parameters: Callable[[Draft], dict[str, Any]]) -> None:
        self._statements = statements
        self._parameters = parameters

    def write(self, connection: Connection, draft: Draft) -> int | None:
        """Write one row, without copies; None where it is a live duplicate.

        Raises:
            IntegrityError: Something else is in the way, which PostgreSQL names. The transaction stays usable.
            NotWrittenError: PostgreSQL does not say what.
        """
        written = self._statements.insert_deduplicated.execute(connection, self._parameters(draft))
        return int(written[0][0]) if written else self.write_left_out(connection, draft)

    def write_left_out(self, connection: Connection, draft: Draft) -> int | None:
        """Write a message as ``write`` does, for a row of which nothing has been written.

        A duplicate may have been settled since. Whatever is in the way now is named by an INSERT that skips nothing.
        """
        if not self._lacks(connection, [draft]):
            return None
        try:
            with connection.begin_nested():
                written = self._statements.insert.execute(connection, self._parameters(draft))
        except IntegrityError as error:
            if not self._lacks(connection, [draft]):
                return None
            error.add_detail(
                f"This message to {draft.queue!r} is no live duplicate, and PostgreSQL refuses its row. Either the "
                "sequence of the table's ids is behind its rows (see setval in PostgreSQL's manual), or a constraint "
                "or unique index of your own, which the error names, permits no such row."
            )
            raise
        if not written:
            raise NotWrittenError(draft.queue)
        return int(written[0][0])

    def move_timer(self, connection: Connection, draft: Draft) -> int | None:
        """Write a message and its copies in the place of live timers of its name; None where a handler has its own.

        A copy that its consumer has stays as it is.

        Raises:
            NotWrittenError: No timer is in the way, and PostgreSQL has written nothing.
        """
        for _ in range(TRIES):
            written = self._statements.insert_timer.execute(connection, self._timer_parameters(draft))
            if written:
                break
            if not self._lacks(connection, [draft]):
                return None
            # Its handler has just finished with it, unless something suppresses the row.
        else:
            raise NotWrittenError(draft.queue)
        for queue in draft.copies:
            self._statements.insert_timer.execute(connection, self._timer_parameters(draft._replace(queue=queue)))
        return int(written[0][0])

    def _timer_parameters(self, draft: Draft) -> dict[str, Any]:
        parameters = self._parameters(draft)
        del parameters["deduplicate"]
        return parameters

    def write_anew(
        self, connection: Connection, drafts: Sequence[Draft], written: Sequence[int]
    ) -> list[int | None] | None:
        """Write all messages anew, some of which were left out, if not only duplicates were.

        All, so that they have their order.

        Args:
            connection: In the caller's transaction.
            drafts: All messages.
            written: The ids of the messages and copies that were written.

        Returns:
            The id of each message, None where it is a live duplicate; no list where nothing was to be written anew.
        """
        if not self._lacks(connection, drafts, written=written):
            return None
        self._statements.take_back.execute(connection, {"ids": written})
        with connection.begin_nested():
            return [self._write_with_copies(connection, draft) for draft in drafts]

    def _write_with_copies(self, connection: Connection, draft: Draft) -> int | None:
        row_id = self.write(connection, draft)
        if row_id is not None:
            for queue in draft.copies:
                self.write(connection, draft._replace(queue=queue))
        return row_id

    def _lacks(self, connection: Connection, drafts: Sequence[Draft], *, written: Sequence[int] | None = None) -> bool:
        """Return whether there are neither rows nor live duplicates of all messages, and of all copies of what is new.

        Args:
            connection: In the caller's transaction.
            drafts: The messages.
            written: Ids of what was written of them. Default: nothing was, and copies are not looked at.
        """
        rows: list[tuple[Draft, str, str | None]] = [(draft, draft.queue, None) for draft in drafts]
        if written:
            rows += [(draft, queue, draft.queue) for draft in drafts for queue in draft.copies]
        parameters: dict[str, Any] = {
            "ids": list(written or ()),
            "queues": [queue for _, queue, _ in rows],
            "origins": [origin for _, _, origin in rows],
            "idempotency_keys": [draft.idempotency_key for draft, _, _ in rows],
            "deduplicates": [draft.deduplicate for draft, _, _ in rows],
            "timer_ids": [draft.timer_id for draft, _, _ in rows],
        }
        return bool(self._statements.left_out.execute(connection, parameters)[0][0])
