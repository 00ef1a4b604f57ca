"""All that a broker has of its tables, behind one name: a test gives it another."""

from typing import Protocol

from faststream_outbox._store.controls import ControlStore
from faststream_outbox._store.protocol import DeadLetterStore, Examiner, Onlooker, Store, Writer


class Storage(Protocol):
    """The parts that a broker hands on: to its loops, to publishers, and to people."""

    @property
    def store(self) -> Store:
        """What the loops work with."""

    @property
    def writer(self) -> Writer:
        """What publishers write with."""

    @property
    def dead_letters(self) -> DeadLetterStore:
        """Where people find what failed for good."""

    @property
    def controls(self) -> ControlStore | None:
        """Where pauses and the audit log are kept; None where there is no table for them."""

    @property
    def onlooker(self) -> Onlooker:
        """What counts and shows rows."""

    @property
    def examiner(self) -> Examiner:
        """What reads the facts that findings are made of."""
