"""The part of the door that needs FastAPI to be installed."""

from faststream._internal.fastapi import StreamMessage, StreamRouter

__all__ = ("StreamMessage", "StreamRouter")
