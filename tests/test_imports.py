"""What ``import faststream_outbox`` takes along."""

import json
import subprocess
import sys

import faststream_outbox

WHO_IMPORTS_MOCK = """
import builtins, json, sys

importers, original = set(), builtins.__import__

def note(name, globals=None, *rest, **options):
    if name.startswith("unittest"):
        importers.add(globals["__name__"])
    return original(name, globals, *rest, **options)

builtins.__import__ = note
import faststream_outbox
print(json.dumps([sorted(importers), sorted(name for name in sys.modules if name.startswith("faststream_outbox"))]))
"""


def test_only_who_tests_pays_for_it() -> None:
    """FastStream itself imports ``unittest.mock`` with each subscriber; that is not ours to change."""
    output = subprocess.run([sys.executable, "-c", WHO_IMPORTS_MOCK], capture_output=True, check=True).stdout
    importers, modules = json.loads(output)
    assert [name for name in importers if name.startswith("faststream_outbox")] == []
    assert "faststream_outbox.broker.broker" in modules
    assert "faststream_outbox.testing" not in modules
    assert "faststream_outbox._store.memory.store" not in modules


WHAT_COMES_ALONG = """
import json, sys
import asyncpg, faststream, faststream.asgi, faststream._internal.broker
import sqlalchemy.ext.asyncio, sqlalchemy.dialects.postgresql.asyncpg

before = set(sys.modules)
import faststream_outbox
print(json.dumps(sorted(set(sys.modules) - before)))
"""
RARELY_USED = (
    "faststream_outbox.fastapi",
    "faststream_outbox.relay",
    "faststream_outbox.cli",
    "faststream_outbox.prometheus",
    "faststream_outbox.opentelemetry",
    "faststream_outbox.forwarders.kafka",
    "faststream_outbox.forwarders.rabbit",
    "faststream_outbox.forwarders.redis",
)


def test_no_client_of_a_destination_and_no_extra_comes_along() -> None:
    """Beside FastStream, SQLAlchemy and asyncpg, an application waits for tenacity alone."""
    output = subprocess.run([sys.executable, "-c", WHAT_COMES_ALONG], capture_output=True, check=True).stdout
    modules = [name for name in json.loads(output) if not name.startswith("_")]
    foreign = {name.partition(".")[0] for name in modules} - {"faststream", "fast_depends"} - sys.stdlib_module_names
    assert foreign == {"faststream_outbox", "tenacity"}
    assert [name for name in modules if name.startswith(RARELY_USED)] == []


def test_every_public_name_is_there() -> None:
    for name in faststream_outbox.__all__:
        assert getattr(faststream_outbox, name) is not None
    assert not hasattr(faststream_outbox, "TestNothing")
