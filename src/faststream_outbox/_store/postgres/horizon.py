"""Up to which id all rows are there that will ever be."""

from collections.abc import Iterable
from typing import NamedTuple

from faststream_outbox._values.run import NO_RUN, Run

LARGEST_ID = 2**63 - 1


class Writer(NamedTuple):
    """A transaction that has written to the table, or is about to."""

    name: str
    is_prepared: bool
    """For a two-phase commit."""


class Horizon:
    """Knows an id below which no row comes any more.

    Ids are given in order, so all that are lower than one that was seen have been given. When all transactions that
    were writing to the table by then have ended, their rows are there, or never will be.

    - It counts only for the run of the server that it was learned from, and such a run ends with a crash.
    - An id that the sequence has not given yet, of a row written with an id of its own, counts for nothing.
    """

    def __init__(self) -> None:
        self.run = NO_RUN
        """That all this was learned from."""
        self.forget()

    def forget(self) -> None:
        """Learn all anew."""
        self.highest = 0
        """Of all ids that were seen."""
        self._mark = 0
        """What ``highest`` was when the writers were asked for."""
        self._writers: frozenset[str] = frozenset()
        """Those of the mark that had not ended yet when the writers were asked for the last time."""
        self._ended = 0
        """All ids up to this one belong to transactions that have ended."""
        self._given = 0
        """The last id that the sequence had given when the writers were asked for; 0 where that is not known."""

    @property
    def unborn(self) -> int:
        """The first id that a row may still come with."""
        return min(self._ended + 1, LARGEST_ID)

    def saw(self, row_id: int) -> None:
        """Note that a row with this id is there."""
        self.highest = max(self.highest, row_id)

    def is_new(self, run: Run, given: int) -> bool:
        """Return whether ids begin anew, or may do so; then all is forgotten.

        Args:
            run: Of the server.
            given: The last id that the sequence has given; 0 where that is not known.
        """
        if run == self.run and given >= self._given:
            return False
        self.run = run
        self.forget()
        return True

    def heard(self, writers: Iterable[Writer], *, highest: int, given: int) -> None:
        """Note who was writing.

        Args:
            writers: All of them.
            highest: What ``highest`` was before they were asked for.
            given: The last id that the sequence has given; 0 where that is not known.
        """
        if 0 < given < highest:
            # A row was written with an id of its own. What the sequence had given the last time is given.
            highest = self.highest = self._given
        self._given = given
        writers = list(writers)
        names = frozenset(writer.name for writer in writers)
        # One of the mark may have another name now.
        prepared = frozenset(writer.name for writer in writers if writer.is_prepared)
        self._writers = (self._writers & names) | prepared
        if not self._writers:
            self._ended = self._mark
            self._mark, self._writers = highest, names
