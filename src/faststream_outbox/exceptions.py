"""Every error that this package raises of its own.

::

    OutboxError
    ├── ConfigError          (ValueError)    declared in a way that cannot work
    ├── InvalidMessageError  (ValueError)    refused at publish; nothing was written
    ├── InvalidSessionError  (TypeError)     not a session that a row can be written with
    └── SchemaError                          the tables in the database are not the tables declared

Errors of PostgreSQL, SQLAlchemy and the destinations' clients are never wrapped: they pass through as they are.
"""

from collections.abc import Mapping, Sequence


class OutboxError(Exception):
    """The base of every error that this package raises of its own."""


class ConfigError(OutboxError, ValueError):
    """A broker, subscriber, forwarder, retry strategy or table was declared in a way that cannot work.

    Raised when it is declared, or when the broker starts; never while messages flow.
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
    """What was passed as ``session`` cannot carry a row: wrong type, closed, or not PostgreSQL."""


class SchemaError(OutboxError):
    """Tables in the database differ from the tables that were declared.

    Attributes:
        differences: One sentence for each difference, which begins with the table's name.
    """

    def __init__(self, problems: Mapping[str, Sequence[str]]) -> None:
        self.differences = [f"{table}: {problem}" for table, found in problems.items() for problem in found]
        super().__init__(
            "the database differs from the declared tables: "
            + "; ".join(self.differences)
            + ". Create or migrate what make_outbox_table and make_dlq_table declare, then validate again"
        )
