"""The part of the door that needs FastAPI to be installed."""

from faststream._internal.fastapi import StreamMessage, StreamRouter
from faststream._internal.fastapi.config import FastAPIConfig
from starlette.routing import _DefaultLifespan as DefaultLifespan

__all__ = ("DefaultLifespan", "FastAPIConfig", "StreamMessage", "StreamRouter")
