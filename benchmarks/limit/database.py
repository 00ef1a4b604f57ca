"""The outbox's database as asyncpg alone sees it."""

from typing import Any

import asyncpg
from sqlalchemy import make_url

CHANNEL = "outbox:outbox"
"""On which the publishers of the table ``outbox`` wake consumers."""


async def connect(url: str) -> Any:
    """Connect with asyncpg to a database whose address is written for SQLAlchemy."""
    dsn = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    return await asyncpg.connect(dsn)
