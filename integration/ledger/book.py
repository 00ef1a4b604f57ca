"""What was committed, as the database itself knows it: a domain row for each message, in the message's transaction.

Whether a transaction committed is then never a guess, whoever died while it did.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from faststream_outbox import OutboxBroker, Outgoing

from .ledger import Message

CREATE = """
    CREATE TABLE IF NOT EXISTS book (
        number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        identity text NOT NULL UNIQUE, queue text NOT NULL, key text, body bytea NOT NULL, headers text NOT NULL
    )
"""
WRITE = text("""
    INSERT INTO book (identity, queue, key, body, headers)
    SELECT identity, :queue, key, body, headers
    FROM unnest(CAST(:identities AS text[]), CAST(:keys AS text[]), CAST(:bodies AS bytea[]), CAST(:headers AS text[]))
        WITH ORDINALITY AS given (identity, key, body, headers, position)
    ORDER BY position
""")


@dataclass(frozen=True, slots=True)
class Letter:
    """A message before it is written."""

    identity: str
    key: str | None
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


class Book:
    """The table `book` of a test's database."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def open(self) -> None:
        """Create the table."""
        async with self._engine.begin() as connection:
            await connection.execute(text(CREATE))

    async def messages(self) -> list[Message]:
        """Every message that was committed, in publishing order."""
        async with self._engine.connect() as connection:
            rows = await connection.execute(
                text("SELECT identity, number, queue, key, body, headers FROM book ORDER BY number")
            )
            return [Message(*row[:5], headers=json.loads(row.headers)) for row in rows]


async def enter(connection: AsyncConnection, queue: str, letters: Sequence[Letter]) -> None:
    """Write letters into the book, in the caller's transaction."""
    given = {
        "queue": queue,
        "identities": [letter.identity for letter in letters],
        "keys": [letter.key for letter in letters],
        "bodies": [letter.body for letter in letters],
        "headers": [json.dumps(dict(letter.headers)) for letter in letters],
    }
    await connection.execute(WRITE, given)


async def publish(
    broker: OutboxBroker, connection: AsyncConnection, queue: str, letters: Sequence[Letter], **options: Any
) -> None:
    """Publish letters and enter them into the book, in the caller's transaction."""
    await enter(connection, queue, letters)
    outgoing = [
        Outgoing(letter.body, key=letter.key, headers=dict(letter.headers), idempotency_key=letter.identity)
        for letter in letters
    ]
    await broker.publish_batch(*outgoing, queue=queue, session=connection, **options)
