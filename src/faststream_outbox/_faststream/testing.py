"""FastStream's private names for tests; with them comes ``unittest.mock``."""

from faststream._internal.testing.broker import EnterType, TestBroker

__all__ = ("EnterType", "TestBroker")
