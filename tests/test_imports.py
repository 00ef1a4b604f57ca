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


def test_every_public_name_is_there() -> None:
    for name in faststream_outbox.__all__:
        assert getattr(faststream_outbox, name) is not None
    assert not hasattr(faststream_outbox, "TestNothing")
