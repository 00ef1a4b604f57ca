#!/usr/bin/env bash
# A provider of dishka's that yields a session inside a context manager, and a request that raises.
#
# Guess:  the scope of the request ends with the exception, so `async with session.begin(): yield session` sees it and rolls
#         back, as the same lines do in FastAPI's dependencies, in pytest's fixtures and under contextlib.
# Truth:  dishka sends the exception to the generator as the value of `yield`, and raises nothing there. The context manager
#         ends without an exception, so the transaction of a request that failed is committed. A provider must look at
#         `failure = yield session`.
# Seen with: dishka 1.10.1, SQLAlchemy 2.1.9 with aiosqlite 0.22.1, Python 3.11.
set -euo pipefail
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    dishka==1.10.1 "sqlalchemy[asyncio]==2.1.9" aiosqlite==0.22.1
cat >"$folder/see.py" <<'PY'
import asyncio, sys
from collections.abc import AsyncIterable
from dishka import Provider, Scope, make_async_container, provide
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.pool import StaticPool

engine = create_async_engine("sqlite+aiosqlite://", poolclass=StaticPool)

class Obvious(Provider):
    @provide(scope=Scope.REQUEST)
    async def session(self) -> AsyncIterable[AsyncSession]:
        async with AsyncSession(engine) as session, session.begin():
            yield session

class Looking(Provider):
    @provide(scope=Scope.REQUEST)
    async def session(self) -> AsyncIterable[AsyncSession]:
        async with AsyncSession(engine) as session:
            failure = yield session
            if failure is None:
                await session.commit()

async def rows_of_a_request_that_raises(provider: Provider) -> int:
    async with engine.begin() as connection:
        await connection.execute(text("DROP TABLE IF EXISTS orders"))
        await connection.execute(text("CREATE TABLE orders (item text)"))
    container = make_async_container(provider)
    try:
        async with container() as request:
            session = await request.get(AsyncSession)
            await session.execute(text("INSERT INTO orders VALUES ('tea')"))
            raise LookupError("the request has failed")
    except LookupError:
        pass
    await container.close()
    async with engine.connect() as connection:
        return (await connection.execute(text("SELECT count(*) FROM orders"))).scalar_one()

async def main() -> bool:
    obvious, looking = [await rows_of_a_request_that_raises(each()) for each in (Obvious, Looking)]
    await engine.dispose()
    print(f"after a request that raised: {obvious} row with begin() around yield, {looking} with a look at yield's value")
    return (obvious, looking) == (1, 0)

sys.exit(0 if asyncio.run(main()) else 1)
PY
"$folder/venv/bin/python" "$folder/see.py" || { echo "CHANGED: a provider sees the exception of its request now"; exit 1; }
echo "As found: the work of a request that raised is committed."
