"""Compares what was committed with what arrived. It knows neither the outbox nor a relay.

findings = audit(await book.messages(), await box.read())
findings.check(repeats_at_most=0)
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields

from integration.destinations.received import Received


@dataclass(frozen=True, slots=True)
class Message:
    """What a transaction committed.

    Attributes:
        identity: its idempotency key.
        number: grows in publishing order; what order per key is judged by.
        headers: those of the caller.
    """

    identity: str
    number: int
    queue: str
    key: str | None
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Findings:
    """What is wrong, an entry for each message or copy concerned."""

    lost: Sequence[str] = ()
    """Committed, and neither arrived nor among the dead letters."""
    repeated: Sequence[str] = ()
    """Arrived before: an entry for each copy after the first."""
    out_of_order: Sequence[str] = ()
    """First copies that arrived behind, or elsewhere than, a later message of their queue and key."""
    changed: Sequence[str] = ()
    """Copies with another body or key than was committed, or without one of its headers."""
    unknown: Sequence[str] = ()
    """Copies of what no transaction committed: rolled back, or with an identity that nobody gave."""

    def check(self, *, repeats_at_most: int = 0) -> None:
        """Raise AssertionError with numbers and examples, unless all is well but for so many repeats."""
        wrong = {each.name: getattr(self, each.name) for each in fields(self)}
        if len(self.repeated) <= repeats_at_most:
            del wrong["repeated"]
        found = [f"{len(entries)} {name}: {', '.join(entries[:5])}" for name, entries in wrong.items() if entries]
        assert not found, "; ".join(found)


def audit(committed: Iterable[Message], copies: Sequence[Received], *, dead: Collection[str] = ()) -> Findings:
    """Judge a run.

    Args:
        committed: every message whose transaction committed, in any order.
        copies: every copy that arrived, those of a place in their order.
        dead: identities that stand among the dead letters.
    """
    messages = {message.identity: message for message in committed}
    arrived = Counter(copy.identity for copy in copies)
    known = [copy for copy in copies if copy.identity in messages]
    return Findings(
        lost=[identity for identity in messages if identity not in arrived and identity not in dead],
        repeated=list((arrived - Counter(set(arrived))).elements()),
        out_of_order=_out_of_order(messages, known),
        changed=[copy.identity for copy in known if not _is_faithful(copy, messages[copy.identity])],
        unknown=[copy.identity for copy in copies if copy.identity not in messages],
    )


def _is_faithful(copy: Received, message: Message) -> bool:
    return (copy.body, copy.key) == (message.body, message.key) and message.headers.items() <= copy.headers.items()


def _out_of_order(messages: Mapping[str, Message], copies: Sequence[Received]) -> list[str]:
    late: list[str] = []
    seen: set[str] = set()
    # By the committed key: a copy with a changed one is out of its order as well.
    places: dict[tuple[str, str], int] = {}
    last: defaultdict[tuple[str, str], int] = defaultdict(int)
    for copy in copies:
        message = messages[copy.identity]
        if copy.identity in seen or message.key is None:
            continue
        seen.add(copy.identity)
        line = (message.queue, message.key)
        if message.number < last[line] or places.setdefault(line, copy.place) != copy.place:
            late.append(copy.identity)
        last[line] = max(last[line], message.number)
    return late
