"""The errors that are this package's own, for users to catch.

::

    OutboxError
    ├── ConfigError          (ValueError)    declared in a way that cannot work
    ├── InvalidMessageError  (ValueError)    refused at publish; nothing was written
    ├── InvalidSessionError  (TypeError)     not a session that a row can be written with
    ├── NoIdentityError      (ValueError)    nothing in a message says whether another one is its repeat
    ├── NotWrittenError                      PostgreSQL has written no row, and did not say why
    └── SchemaError                          the tables in the database are not the tables declared

Beside them stand Python's own: ``TypeError`` for an option that does not exist, ``ValueError`` for a number out of its
range; and FastStream's ``FeatureNotSupportedException`` for what an outbox cannot do. Errors of PostgreSQL and
SQLAlchemy are not wrapped: they pass through to the caller as they are, such as ``IntegrityError`` where a constraint
forbids a message that is no live duplicate. Those of the destinations reach no caller; they stand in the log, in a
forwarder's status and with dead letters.
"""

from collections.abc import Mapping, Sequence


class OutboxError(Exception):
    """The base of the errors that are this package's own."""


class ConfigError(OutboxError, ValueError):
    """Something was declared in a way that cannot work: a broker, subscriber, forwarder, retry strategy or table.

    Raised when it is declared, or when the broker starts. Later only by what is called with a wrong argument
    (``dead_letters``), where ``publish`` finds two forwarders whose copies have one name, by ``publish_sync`` with a
    codec that has to be awaited, and where a FastAPI dependency asks for what means nothing there.
    """


class InvalidMessageError(OutboxError, ValueError):
    """``publish`` refused a message before anything was written; the caller's transaction stays usable.

    Attributes:
        argument: The argument of ``publish`` that was refused.
    """

    def __init__(self, argument: str, problem: str) -> None:
        super().__init__(f"{argument}: {problem}")
        self.argument = argument


class InvalidSessionError(OutboxError, TypeError):
    """What was passed as ``session`` cannot carry a row; nothing was written.

    It is of a wrong type; it is closed for good, or its transaction has failed; it is not on PostgreSQL; it is in
    AUTOCOMMIT, where a rollback would leave the message; or its ``schema_translate_map`` puts the outbox table where
    the broker does not look. A ``Session`` after ``close()`` is none of these: SQLAlchemy begins a new transaction with
    it, unless it was made with ``close_resets_only=False``.
    """


class NoIdentityError(OutboxError, ValueError):
    """A message cannot be accepted by an inbox, since nothing in it says whether another one is its repeat.

    It comes from no outbox, and its broker gives it no id of its own; or it is a batch of several messages.
    """


class NotWrittenError(OutboxError):
    """PostgreSQL took a message and wrote no row: a trigger or a rule of the table's owner has suppressed it.

    The caller's transaction is as it was before.

    Attributes:
        queue: Where the message was to go; of an inbox, the outbox queue that it comes from.
    """

    def __init__(self, queue: str, *, table: str = "outbox table") -> None:
        super().__init__(
            f"PostgreSQL took the message {'to' if table == 'outbox table' else 'of'} {queue!r} and wrote no row; "
            f"look for a trigger or a rule on the {table} that suppresses it"
        )
        self.queue = queue


class SchemaError(OutboxError):
    """Tables in the database differ from the tables that were declared.

    Attributes:
        differences: One sentence for each difference, which begins with the table's name.
    """

    def __init__(
        self, problems: Mapping[str, Sequence[str]], *, made_by: str = "make_outbox_table and make_dlq_table declare"
    ) -> None:
        self.differences = [f"{table}: {problem}" for table, found in problems.items() for problem in found]
        super().__init__(
            "the database differs from the declared tables: "
            + "; ".join(self.differences)
            + f". Create or migrate what {made_by}, then validate again"
        )
