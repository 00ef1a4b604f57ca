"""What the lanes of one forwarder share."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from faststream_outbox._engine.relaying.breaker import Breaker
from faststream_outbox._engine.relaying.deferrer import Deferrer
from faststream_outbox._engine.relaying.pause import Pause
from faststream_outbox._engine.relaying.remembered import Remembered
from faststream_outbox._engine.wakeups import TeamBell
from faststream_outbox._values.outcome import Accepted, Dead, Deduplicated, Dropped, Refused, Settlement, Verdict


@dataclass(slots=True)
class Tally:
    """What has become of rows, counted when it is committed."""

    sent: int = 0
    """Accepted by the destination."""
    refused: int = 0
    """Attempts that counted: the destination or the transform refused the row."""
    dead: int = 0
    """Made dead letters."""
    dropped: int = 0
    """Left out by the transform."""
    deduplicated: int = 0
    """Known to the destination from before, which keeps the first one alone."""

    def add(self, verdicts: Iterable[Verdict], settlements: Iterable[Settlement]) -> None:
        """Count what a hand-over has come to."""
        of_verdict = Counter(map(type, verdicts))
        self.sent += of_verdict[Accepted]
        self.deduplicated += of_verdict[Deduplicated]
        self.refused += of_verdict[Refused]
        self.dropped += of_verdict[Dropped]
        self.dead += Counter(type(outcome) for _, outcome in settlements)[Dead]


@dataclass(frozen=True, slots=True)
class Team:
    """What the lanes of one forwarder share."""

    breaker: Breaker
    pause: Pause = field(default_factory=Pause)
    bell: TeamBell = field(default_factory=TeamBell)
    tally: Tally = field(default_factory=Tally)
    remembered: Remembered = field(default_factory=Remembered)
    deferrer: Deferrer = field(default_factory=Deferrer)
    name: str = ""
    """The forwarder's."""
    address: str = ""
    """Kind and address of the destination, as in ``kafka:orders.v1``."""
