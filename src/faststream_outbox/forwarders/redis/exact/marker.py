"""What the marker of a shard says: a list in Redis that is written in one step with the messages, or not at all."""

import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from faststream_outbox._values.position import Mark
from faststream_outbox._values.row import OutboxRow
from faststream_outbox._values.run import Run

PREFIX = "faststream-outbox:"
"""The names of all markers begin like this. What follows is the producer's id, in hexadecimal digits."""

RANDOM_BITS = 24
"""Of a token: the others count. So tokens say which is older, and two processes never write the same one."""

TOKEN_DIGITS = 19
"""Of a token as text, with zeros before it: as many as the largest number of 63 bits has."""

KEPT = 8
"""Elements that a marker keeps beyond those that PostgreSQL may not know yet. So many hand-overs of a shard may a
database lose when it fails over, and they are found."""

END = b"\0"
"""Behind the tokens of an element, and between its marks: the one character that a text in PostgreSQL never has."""


class Element(NamedTuple):
    """What one step has added to the marker."""

    token: int
    before: int
    """The token that was to have come before it."""
    marks: Sequence[Mark]
    """The messages that are there since."""


def name_of(producer_id: int) -> str:
    """Return the key of a marker."""
    return f"{PREFIX}{producer_id:016x}"


def count_of(token: int) -> int:
    """Return how many steps have come before a token; 0 for a shard of which nothing was sent."""
    return token >> RANDOM_BITS


def first_token() -> int:
    """Return a token for a shard of which nothing was sent."""
    return secrets.randbits(RANDOM_BITS)


def next_token(*tokens: int) -> int:
    """Return a token that is newer than all of these."""
    return (max(map(count_of, tokens)) + 1) << RANDOM_BITS | secrets.randbits(RANDOM_BITS)


def token_text(token: int | None) -> bytes:
    """Return a token as the marker has it, and nothing for no marker."""
    return b"" if token is None else b"%0*d" % (TOKEN_DIGITS, token)


def mark_text(marked: Mark | OutboxRow) -> bytes:
    """Return a mark, or that of a row, as an element has it."""
    return b"%d:%b" % (marked[0], marked.idempotency_key.encode())


def element_of(text: bytes) -> Element:
    """Read an element."""
    tokens, *marks = text.split(END)
    token, before = tokens.split()
    return Element(int(token), int(before), [_mark_of(mark) for mark in marks])


def _mark_of(text: bytes) -> Mark:
    row_id, _, key = text.decode().partition(":")
    return Mark(int(row_id), key)


@dataclass(frozen=True, slots=True)
class Finding:
    """What follows from a marker."""

    current: int | None
    """The token that it has; None where there is no marker."""
    marks: Collection[Mark] = ()
    """Messages that are there, and of which the position table may not know."""
    behind: int = 0
    """Elements that the marker must keep for that."""
    first: int | None = None
    """The token of the first of them."""
    is_older: bool = False
    """Whether it lacks what was acknowledged and settled."""
    is_gone: bool = False
    """Whether there is none, although there was one."""
    is_cut: bool = False
    """Whether it does not reach back to what the position table knows."""

    @property
    def is_whole(self) -> bool:
        """Whether the position table and the marker tell one story."""
        return not (self.is_older or self.is_gone or self.is_cut)


def judge(known: int, there: Sequence[Element]) -> Finding:
    """Return what a marker says to a process that has taken rows of the shard.

    Args:
        known: The token that the position table has. A negative one says that rows wait whose messages are there: the
            element of this token names them.
        there: The elements of the marker, the newest last.
    """
    token = abs(known)
    if not there:
        return Finding(None, is_gone=count_of(token) > 0)
    current = there[-1].token
    # What comes behind a token says the same, unless Redis has lost the token.
    for part in ("token", "before"):
        for at, element in enumerate(there):
            if getattr(element, part) == token:
                since = there[at + 1 :] if element.token == known else there[at:]
                return Finding(current, _marks(since), len(since), since[0].token if since else None)
    # A token that is not there although older ones are was lost.
    is_older = count_of(there[0].before) < count_of(token)
    return Finding(current, _marks(there), len(there), there[0].token, is_older=is_older, is_cut=not is_older)


def _marks(elements: Sequence[Element]) -> frozenset[Mark]:
    return frozenset(mark for element in elements for mark in element.marks)


@dataclass(slots=True)
class ShardMarker:
    """The marker of one shard, as a process knows it.

    Args:
        name: Its key.
        known: The token that the position table has; see ``judge``.
        run: Of the database server that says so.
    """

    name: str
    known: int
    run: Run
    current: int | None = field(init=False)
    """The token that the marker is expected to have."""
    before: int = field(init=False)
    """What the next element says of the one before it."""
    behind: int = 0
    """Elements that PostgreSQL does not know of yet."""
    found: set[Mark] = field(default_factory=set)
    """Messages that are there: their rows are not sent."""
    alive: set[Mark] = field(default_factory=set)
    """Those of them whose rows are still in the outbox table."""
    waiting: Collection[Mark] = ()
    """Those of these that this hand-over has not got: each element names them anew, until they are settled."""
    has_sent: bool = False
    """Whether an element was added since."""
    first: int | None = None
    """The token of the first element that PostgreSQL does not know of, or that names a row which waits."""
    is_in_doubt: bool = False
    """Whether something was sent that has no answer."""
    is_last: bool = False
    """Whether this process has sent and settled last: nobody can have sent anything since."""

    def __post_init__(self) -> None:
        token = abs(self.known)
        # Nothing was sent, so there is no marker.
        self.current, self.before = (token if count_of(token) else None), token

    @property
    def is_open(self) -> bool:
        """Whether rows wait whose messages are there, so that it has to be looked which."""
        return self.known < 0

    def learned(self, finding: Finding, in_hand: Collection[Mark], alive: Collection[Mark]) -> None:
        """Take over what the marker says.

        Args:
            finding: What follows from it.
            in_hand: The rows of this hand-over.
            alive: Those of its marks whose rows are in the outbox table, but not in this hand-over.
        """
        self.current, self.behind = finding.current, finding.behind
        self.first, self.has_sent = finding.first, False
        # The next process is to find the token of the position table, also where the marker lacks it.
        is_linked = finding.is_whole and finding.current is not None
        self.before = finding.current if is_linked and finding.current is not None else abs(self.known)
        self.found = set(finding.marks)
        self.alive = {*self.found.intersection(in_hand), *alive}
        self.waiting = frozenset(alive)

    def taken(self, token: int) -> None:
        """Note that an element with this token is there."""
        self.current = self.before = token
        self.behind += 1
        self.has_sent = True
        if self.first is None:
            self.first = token

    def next_token(self) -> int:
        """Return the token of the next element."""
        return next_token(abs(self.known), self.current or 0)

    def moves_to(self, settled: Collection[Mark]) -> int | None:
        """Return the token that the position table is to have with the outcomes of a hand-over; None if it stays.

        It says that rows wait while the row of a message that was found is not settled: else the next process would not
        find it. It does not stay as it was, or nobody would see that Redis has lost what is settled now.

        Args:
            settled: The rows that are written as delivered.
        """
        unsettled = self.alive.difference(settled)
        if self.current is None or (not unsettled and self.current == self.known):
            return None
        if not unsettled:
            return self.current
        is_told_anew = self.has_sent and unsettled.issubset(self.waiting)
        since = self.current if is_told_anew else self.first
        return None if since is None or -since == self.known else -since

    def stays_behind(self, known: int) -> int | None:
        """Return the token that is to be written after another one, since the table keeps rows that are there.

        It says that they wait, as for a row that was found and is not settled. None where that is written, or where no
        element names them.

        Args:
            known: The token that was written, and is not committed.
        """
        return None if self.first is None or -self.first == known else -self.first

    def moved(self, known: int) -> None:
        """Note that this is written for good."""
        self.known, self.behind, self.first = known, 0, None
        self.found, self.alive, self.waiting = set(), set(), ()

    @property
    def is_clear(self) -> bool:
        """Whether PostgreSQL knows all that the marker has."""
        is_known = self.current == self.known or (self.current is None and not count_of(self.known))
        return is_known and not self.is_in_doubt and not self.alive
