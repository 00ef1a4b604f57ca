"""A process with a broker, to be killed, frozen or stopped: python -m integration.broker.worker.

It prints "ready", then "began N" and "ended N" for each message, and stops cleanly on SIGTERM. HANDLER_SECONDS says how
long a message takes, LEASE_SECONDS and WORKERS what the subscriber is given, QUEUE which queue it has. With a
CONTROL_TABLE it heeds pauses for all processes, and with POLL it does not listen.
"""

import asyncio
import os
import signal

from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import create_async_engine

from faststream_outbox import OutboxBroker, make_outbox_control_table, make_outbox_table


async def main() -> None:
    engine = create_async_engine(os.environ["DATABASE_URL"])
    control_table = os.environ.get("CONTROL_TABLE")
    broker = OutboxBroker(
        engine,
        outbox_table=make_outbox_table(MetaData()),
        control_table=None if control_table is None else make_outbox_control_table(MetaData(), control_table),
        graceful_timeout=5.0,
        listen="POLL" not in os.environ,
    )

    @broker.subscriber(
        os.environ.get("QUEUE", "orders"),
        max_workers=int(os.environ.get("WORKERS", "4")),
        lease_ttl_seconds=float(os.environ.get("LEASE_SECONDS", "60")),
    )
    async def handle(body: int) -> None:
        print("began", body)
        await asyncio.sleep(float(os.environ["HANDLER_SECONDS"]))
        print("ended", body)

    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await broker.start()
    print("ready")
    await stop.wait()
    await broker.stop()
    await engine.dispose()


if __name__ == "__main__":
    asyncio.run(main())
