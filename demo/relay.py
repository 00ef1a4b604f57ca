"""``python -m demo.relay``: forwarders in a process of their own, which serves no shop.

Any number of relays can run, beside shops that have forwarders themselves: each message is carried by one of them, and
those of one customer in order. At PORT it says how all is doing (``/metrics``), whether it lives (``/livez``), and
whether it is ready (``/healthz``).
"""

import os

import uvicorn
from faststream.asgi import AsgiFastStream
from faststream.kafka import KafkaBroker
from faststream.rabbit import RabbitBroker, RabbitQueue
from faststream.redis import RedisBroker
from prometheus_client import make_asgi_app
from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import create_async_engine

from demo.hosts import KnownHosts
from faststream_outbox import OutboxBroker, make_outbox_table
from faststream_outbox.probes import make_live_asgi, make_ready_asgi
from faststream_outbox.prometheus import OutboxMetrics

kafka = KafkaBroker(os.environ["KAFKA_BOOTSTRAP"], acks="all")
rabbit = RabbitBroker(os.environ["RABBITMQ_URL"])
redis = RedisBroker(os.environ["REDIS_URL"])

engine = create_async_engine(os.environ["DATABASE_URL"], hide_parameters=True)
broker = OutboxBroker(engine, outbox_table=make_outbox_table(MetaData()), metrics=OutboxMetrics(refresh_seconds=2.0))
broker.forwarder("orders", to=kafka.publisher("orders.v1"))
broker.forwarder("receipts", to=rabbit.publisher("receipts", persist=True))
broker.forwarder("stock", to=redis.publisher(stream="stock"))

app = AsgiFastStream(
    broker,
    asgi_routes=[
        ("/metrics", make_asgi_app()),
        ("/livez", make_live_asgi(broker)),
        ("/healthz", make_ready_asgi(broker, timeout=2.0)),
    ],
    logger=None,
)


@app.on_startup
async def declare_queue() -> None:
    async with RabbitBroker(os.environ["RABBITMQ_URL"]) as declaring:
        # In earnest, the service that reads it declares it; what no queue takes is refused, and kept.
        await declaring.declare_queue(RabbitQueue("receipts", durable=True))


if __name__ == "__main__":
    uvicorn.run(
        KnownHosts(app),
        host=os.environ.get("HOST", "127.0.0.1"),
        port=int(os.environ.get("PORT", "8001")),
        log_level="warning",
    )
