"""Destinations of every kind in one shape: an address is opened, its server is broken, and what arrived is read.

A file for each kind. What differs between kinds is data (the class variables of `Box`), so that one test runs on all of
them; `kinds` lists them. What a kind alone has (records, message properties, envelopes) its file reads as well.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .base import Box


def box_class(kind: str) -> type["Box"]:
    """Return the class of a kind, as `"redis-stream"`. Its client alone is imported: relays are started often."""
    module = import_module(f"{__name__}.{kind.partition('-')[0]}")
    return next(each for each in vars(module).values() if getattr(each, "kind", None) == kind)
