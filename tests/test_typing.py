"""What a type checker says of `to=`, which takes the publishers of every FastStream broker, and of the README."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

PROGRAM = """\
from faststream.confluent import KafkaBroker as ConfluentBroker
from faststream.confluent.fastapi import KafkaRouter as ConfluentRouter
from faststream.kafka import KafkaBroker, KafkaRouter
from faststream.kafka.fastapi import KafkaRouter as KafkaFastAPIRouter
from faststream.mqtt import MQTTBroker
from faststream.nats import NatsBroker
from faststream.nats.fastapi import NatsRouter
from faststream.rabbit import RabbitBroker
from faststream.rabbit.fastapi import RabbitRouter
from faststream.redis import RedisBroker
from faststream.redis.fastapi import RedisRouter
from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import create_async_engine

from faststream_outbox import OutboxBroker, OutboxRouter, make_outbox_table
from faststream_outbox.fastapi import OutboxRouter as FastAPIOutboxRouter

engine = create_async_engine("postgresql+asyncpg://localhost/shop")
table = make_outbox_table(MetaData())
kafka, rabbit, redis = KafkaBroker(), RabbitBroker(), RedisBroker()
broker = OutboxBroker(engine, outbox_table=table)
plain = OutboxRouter()
router = FastAPIOutboxRouter(engine, outbox_table=table)

broker.forwarder("a", to=kafka.publisher("a"))
broker.forwarder("b", to=rabbit.publisher("b"))
broker.forwarder("c", to=redis.publisher(stream="c"))
broker.forwarder("d", to=redis.publisher(list="d"))
broker.forwarder("e", to=NatsBroker().publisher("e"))
broker.forwarder("f", to=ConfluentBroker().publisher("f"))
broker.forwarder("g", to=MQTTBroker().publisher("g"))
broker.forwarder("h", to=KafkaRouter().publisher("h"))
broker.forwarder("i", to=KafkaFastAPIRouter().publisher("i"))
plain.forwarder("j", to=RabbitRouter().publisher("j"))
plain.forwarder("k", to=RedisRouter().publisher("k"))
router.forwarder("l", to=NatsRouter().publisher("l"))
router.forwarder("m", to=ConfluentRouter().publisher("m"))


broker.forwarder("n", to=kafka)  # refused: a broker
plain.forwarder("o", to="topic")  # refused: a str
router.forwarder("p", to=kafka)  # refused: a broker
router.forwarder("q", to=None)  # refused: None
"""


def mypy(program: Path) -> subprocess.CompletedProcess[str]:
    """Check a program of a user as strictly as mypy can."""
    return subprocess.run(
        # With the cache of `make types`: reading FastStream and its clients anew takes half a minute.
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(ROOT / ".mypy_cache"), str(program)],
        cwd=program.parent,
        env=os.environ | {"MYPYPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
    )


@pytest.mark.timeout(400)
def test_a_type_checker_takes_publishers_alone(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    checked = mypy(program)
    wrong = {
        int(number): text
        for number, text in re.findall(r"^program\.py:(\d+): error: (.*)$", checked.stdout, re.MULTILINE)
    }
    refused = [number for number, line in enumerate(PROGRAM.splitlines(), 1) if "# refused" in line]
    assert sorted(wrong) == refused, checked.stdout + checked.stderr
    assert all('Argument "to"' in text and "[arg-type]" in text for text in wrong.values())


@pytest.mark.timeout(400)
def test_the_program_of_the_readme_passes_strictly(tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    program = tmp_path / "shop.py"
    program.write_text("\n\n".join(re.findall(r"^```python\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)))
    assert "router.forwarder(" in program.read_text()
    checked = mypy(program)
    assert checked.returncode == 0, checked.stdout + checked.stderr
