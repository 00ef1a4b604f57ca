"""An application that publishes until it is killed: `python -m integration.scenarios.application`.

It prints "ready" when the first transaction is committed.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import create_async_engine

from faststream_outbox import make_outbox_table
from integration.faults.processes import ChildProcess, run_python

from .load import Load


@asynccontextmanager
async def running_application(
    database_url: str, *, name: str, seed: int, rows_per_second: float
) -> AsyncIterator[ChildProcess]:
    """Run an application that publishes at a rate, under identities that begin with its name. Killed on leaving."""
    env = {"DATABASE_URL": database_url, "NAME": name, "SEED": str(seed), "RATE": str(rows_per_second)}
    async with run_python("-m", __name__, env=env, timeout=60) as child:
        yield child


async def main() -> None:
    engine = create_async_engine(os.environ["DATABASE_URL"])
    load = Load(engine, make_outbox_table(MetaData()), seed=int(os.environ["SEED"]), name=os.environ["NAME"])
    await load.backlog(1)
    print("ready", flush=True)
    async with load.flowing(float(os.environ["RATE"])):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
