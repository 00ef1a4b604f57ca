"""What every store promises, as one suite: a file for each topic. A store passes it by filling in a `Subject`.

Time is not waited for: a row is due because its time is past, a lease has run out because it was given zero seconds.
"""

from .backlog import Backlog
from .claims import Claims
from .copies import Copies
from .dead_letters import DeadLetters
from .deferred import DeferredRows
from .fairness import Fairness
from .hand_overs import HandOvers
from .held_keys import HeldKeys
from .leases import Leases
from .listening import Listening
from .order import Order
from .outcomes import Outcomes
from .paused_keys import PausedKeys
from .publishing import Publishing
from .subject import (
    LONG,
    ME,
    OTHER,
    PAST,
    Died,
    Failed,
    Stored,
    Subject,
    claim,
    deliver,
    die,
    draft,
    fail_once,
    failing,
    hold,
    ids,
    ids_of_queue,
    keys_apart,
    keys_together,
    parts,
    put,
    seconds_to_due,
    settle,
    shards,
    shards_of,
    visit,
)
from .surveys import Surveys
from .takers import Takers
from .timers import Timers

__all__ = (
    "LONG",
    "ME",
    "OTHER",
    "PAST",
    "Died",
    "Failed",
    "StoreSuite",
    "Stored",
    "Subject",
    "claim",
    "deliver",
    "die",
    "draft",
    "fail_once",
    "failing",
    "hold",
    "ids",
    "ids_of_queue",
    "keys_apart",
    "keys_together",
    "parts",
    "put",
    "seconds_to_due",
    "settle",
    "shards",
    "shards_of",
    "visit",
)


class StoreSuite(
    Publishing,
    Copies,
    Timers,
    Claims,
    Leases,
    Outcomes,
    HandOvers,
    Backlog,
    Takers,
    Order,
    HeldKeys,
    PausedKeys,
    DeferredRows,
    Fairness,
    Surveys,
    Listening,
    DeadLetters,
):
    """The whole of it."""
