"""The parts of a store in memory, as a broker has them."""

from dataclasses import dataclass, field

from faststream_outbox._store.memory.controls import MemoryControls
from faststream_outbox._store.memory.dead_letters import MemoryDeadLetters
from faststream_outbox._store.memory.onlooker import MemoryOnlooker
from faststream_outbox._store.memory.store import MemoryStore
from faststream_outbox._store.protocol import Examiner, Writer
from faststream_outbox._store.storage import Storage


@dataclass(kw_only=True)
class MemoryStorage:
    """One store in memory, seen from all sides."""

    store: MemoryStore
    writer: Writer
    """Writes to the store, and may do more."""
    real: Storage
    """What it stands for."""
    dead_letters: MemoryDeadLetters = field(init=False)
    onlooker: MemoryOnlooker = field(init=False)

    def __post_init__(self) -> None:
        self.dead_letters = MemoryDeadLetters(self.store)
        self.onlooker = MemoryOnlooker(self.store)

    @property
    def controls(self) -> MemoryControls | None:
        """What keeps pauses, if the broker has a table for them: else they would work in tests alone."""
        return None if self.real.controls is None else self.store.controls

    @property
    def examiner(self) -> Examiner:
        """What examines the database: memory has nothing to examine."""
        return self.real.examiner
