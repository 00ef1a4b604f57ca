"""The privileges of each role, as printed in docs/inbox.md: they are enough, and none of them is too much."""

import re
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from faststream_outbox import Inbox

from .test_accepting import copy_of

PAGE = Path(__file__).parents[2] / "docs" / "inbox.md"
GRANT = re.compile(r"GRANT (.*?) ON inbox TO (\w+);")
PRIVILEGE = re.compile(r"(SELECT|INSERT|UPDATE|DELETE)(?: \((.*?)\))?")
ROLE = "inbox_role_of_a_test"


def granted() -> dict[str, list[str]]:
    """What stands on the page for each role, a column each."""
    roles: dict[str, list[str]] = {}
    for privileges, role in GRANT.findall(PAGE.read_text(encoding="utf-8")):
        for kind, columns in PRIVILEGE.findall(privileges):
            each = [f" ({column.strip()})" for column in columns.split(",")] if columns else [""]
            roles.setdefault(role, []).extend(f"{kind}{column}" for column in each)
    return roles


@pytest.fixture
async def role(engine: AsyncEngine, inbox: Inbox) -> AsyncIterator[AsyncEngine]:
    """An engine whose role may do nothing yet."""
    async with engine.begin() as connection:
        await connection.execute(text(f"CREATE ROLE {ROLE} LOGIN PASSWORD 'x'"))
        await connection.execute(text(f"GRANT USAGE ON SCHEMA public TO {ROLE}"))
    other = create_async_engine(engine.url.set(username=ROLE, password="x"))
    yield other
    await other.dispose()
    async with engine.begin() as connection:
        await connection.execute(text(f"DROP OWNED BY {ROLE}"))
        await connection.execute(text(f"DROP ROLE {ROLE}"))


async def handle(engine: AsyncEngine, inbox: Inbox) -> None:
    for first in (True, False):
        async with engine.begin() as connection:
            assert await inbox.accept(connection, copy_of("handled")) is first


async def prune(engine: AsyncEngine, inbox: Inbox) -> None:
    await inbox.prune(engine, older_than=timedelta(microseconds=1))


@pytest.mark.parametrize(("name", "work"), [("handler", handle), ("pruner", prune)])
async def test_the_privileges_are_enough_and_none_is_too_much(
    engine: AsyncEngine, role: AsyncEngine, inbox: Inbox, name: str, work: object
) -> None:
    privileges = granted()[name]

    async def grant(statement: str) -> None:
        async with engine.begin() as connection:
            await connection.execute(text(statement))
            await connection.execute(text("TRUNCATE inbox"))

    for privilege in privileges:
        await grant(f"GRANT {privilege} ON inbox TO {ROLE}")
    await work(role, inbox)
    for privilege in privileges:
        await grant(f"REVOKE {privilege} ON inbox FROM {ROLE}")
        with pytest.raises(DBAPIError, match="permission denied"):
            await work(role, inbox)
        await grant(f"GRANT {privilege} ON inbox TO {ROLE}")
