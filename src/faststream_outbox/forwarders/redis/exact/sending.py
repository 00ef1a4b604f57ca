"""The rows of one hand-over: for each shard one step, which takes them if its marker is the expected one."""

from collections import defaultdict
from collections.abc import Collection, Mapping, MutableMapping, Sequence
from typing import Any

from faststream_outbox._values.outcome import ACCEPTED, Refused, Unsent, Verdict
from faststream_outbox._values.shard import Shard
from faststream_outbox.forwarders.batches import Answer
from faststream_outbox.forwarders.connected_destination import Verdicts
from faststream_outbox.forwarders.redis.client import RedisClient
from faststream_outbox.forwarders.redis.exact.marker import mark_text
from faststream_outbox.forwarders.redis.exact.positions import LaneMarkers
from faststream_outbox.forwarders.redis.exact.script import (
    MOST_ARGUMENTS,
    Contradicted,
    Message,
    Taken,
    answer_of,
    call,
)
from faststream_outbox.forwarders.redis.packing import Command
from faststream_outbox.forwarders.redis.sending import Packed, TransactionSender
from faststream_outbox.forwarders.redis.settings import RedisSettings
from faststream_outbox.forwarders.redis.verdicts import RedisAnswerError
from faststream_outbox.forwarders.suspects import ConnectionBrokenError

PROTOCOL_ERROR = "ERR Protocol error"
"""The server has not read the command to its end, and hangs up. Nothing was executed."""

NOT_PERMITTED = ("ERR The user executing the script can't", "ERR ACL failure in script")
"""How Redis 7 says in a script what is NOPERM without one."""


class ExactSender(TransactionSender):
    """Sends as ``TransactionSender`` does, and what an earlier process has sent already is accepted without that.

    Args:
        client: Executes the steps.
        settings: How messages are made, and where they go.
        verdicts: See ``BatchSender``.
        markers: Of the lane.
    """

    most_fields = MOST_ARGUMENTS

    def __init__(
        self,
        client: RedisClient,
        settings: RedisSettings,
        verdicts: MutableMapping[int, Verdict],
        markers: LaneMarkers,
    ) -> None:
        super().__init__(client, settings, verdicts)
        self._redis = client
        self._markers = markers
        verb, _, *fixed = settings.command
        self._verb = str(verb).encode()
        # Of a plain entry, the fields of the headers stand before the name of the field that has the payload.
        name = [fixed.pop()] if settings.message_format is None else []
        self._fixed, self._name = _encoded(fixed), _encoded(name)

    def _pack(self, run: list[Packed]) -> tuple[list[Packed], Sequence[Command]]:
        return self._take(run), ()

    async def _exchange(self, batch: Sequence[Command], members: Sequence[Packed]) -> Answer:
        verdicts: dict[int, Verdict] = {}
        rest: dict[Shard, Sequence[Packed]] = _by_shard(members, self._markers)
        held: set[str | None] = set()
        while rest and not any(map(_is_trouble, verdicts.values())):
            ready = {shard: self._ready(shard, of_shard, verdicts, held) for shard, of_shard in rest.items()}
            sent = {shard: of_shard for shard, of_shard in ready.items() if of_shard}
            answers = await self._step(sent)
            rest = {}
            for shard, answer in answers.items():
                match answer:
                    case Taken():
                        rest[shard] = self._taken(answer, sent[shard], verdicts, held)
                    case Contradicted():
                        self._markers.contradicted(shard)
                        rest[shard] = sent[shard]
                    case _:
                        verdict = _unsent(answer, sent[shard])
                        verdicts |= dict.fromkeys([each.row.id for each in sent[shard]], verdict)
        in_order = [verdicts.get(each.row.id, Unsent()) for each in members]
        return Answer(in_order, behind=Unsent() if any(map(_is_trouble, in_order)) else None)

    def _ready(
        self, shard: Shard, rows: Sequence[Packed], verdicts: Verdicts, held: Collection[str | None]
    ) -> Sequence[Packed]:
        """Return the rows that are to be sent now; note the others."""
        if (marker := self._markers.marker_of(shard)) is None:
            verdicts.update(dict.fromkeys([each.row.id for each in rows], Unsent(self._markers.why(shard))))
            return ()
        if not marker.found and not held:
            return rows
        ready = []
        for each in rows:
            if self._markers.is_found(each.row):
                verdicts[each.row.id] = ACCEPTED
            elif each.row.key is not None and each.row.key in held:
                verdicts[each.row.id] = Unsent()
            else:
                ready.append(each)
        return ready

    async def _step(self, sent: Mapping[Shard, Sequence[Packed]]) -> Mapping[Shard, Taken | Contradicted | Exception]:
        """Send rows of several shards together, each shard's in a step of its own."""
        answers: list[Any] = []
        missing: Exception = ConnectionError("no answer")
        markers = {shard: marker for shard in sent if (marker := self._markers.marker_of(shard)) is not None}
        tokens = {shard: marker.next_token() for shard, marker in markers.items()}
        calls = [
            call(markers[shard], tokens[shard], self._messages(of_shard), verb=self._verb, fixed=self._fixed)
            for shard, of_shard in sent.items()
        ]
        for marker in markers.values():
            # Whatever ends this call, a time-out among others, it is in doubt from here on.
            marker.is_in_doubt = True
        try:
            await self._redis.evaluate(calls, answers)
        except Exception as error:  # noqa: BLE001 - each becomes a verdict
            missing = error
        known: dict[Shard, Taken | Contradicted | Exception] = dict.fromkeys(sent, missing)
        for (shard, marker), answer in zip(markers.items(), answers, strict=False):
            known[shard] = read = answer if isinstance(answer, Exception) else answer_of(answer)
            # A command that was not read to its end was not executed. Of all others that fail, it is not sure.
            marker.is_in_doubt = isinstance(read, Exception) and not _is_unread(read)
            if isinstance(read, Taken) and read.count:
                marker.taken(tokens[shard])
        return known

    def _messages(self, rows: Sequence[Packed]) -> list[Message]:
        own, name = self._settings.address.encode(), self._name
        return [
            Message(
                mark_text(packed.row),
                own if packed.address is None else packed.address.encode(),
                (*packed.fields, *name, packed.message) if name else (packed.message,),
            )
            for packed in rows
        ]

    def _taken(
        self, taken: Taken, sent: Sequence[Packed], verdicts: Verdicts, held: set[str | None]
    ) -> Sequence[Packed]:
        """Note what was taken, and what was not; return what stands behind that."""
        verdicts.update(dict.fromkeys([each.row.id for each in sent[: taken.count]], ACCEPTED))
        if taken.problem is None:
            return ()
        refused = sent[taken.count]
        address = self._settings.address if refused.address is None else refused.address
        error = RedisAnswerError(f"{self._verb.decode()} {address!r}", _reply(taken.problem))
        verdicts[refused.row.id] = verdict = refused.classify(error)
        if isinstance(verdict, Refused):
            held.add(refused.row.key)
        return sent[taken.count + 1 :]


def _by_shard(members: Sequence[Packed], markers: LaneMarkers) -> dict[Shard, Sequence[Packed]]:
    shards: defaultdict[Shard, list[Packed]] = defaultdict(list)
    for each in members:
        shards[markers.shard_of(each.row.id)].append(each)
    return {**shards}


def _encoded(arguments: Sequence[str | int]) -> list[bytes]:
    return [str(argument).encode() for argument in arguments]


def _is_trouble(verdict: Verdict) -> bool:
    return isinstance(verdict, Unsent) and verdict.exception is not None


def _is_unread(error: object) -> bool:
    return isinstance(error, RedisAnswerError) and error.reply.startswith(PROTOCOL_ERROR)


def _unsent(answer: Exception, sent: Sequence[Packed]) -> Verdict:
    if not _is_unread(answer):
        # Also answers that would refuse a row, were it alone: it is not sure that none was taken.
        return Unsent(answer)
    # The server has hung up. Which of the messages is too large for it is seen when each is sent alone.
    return sent[0].classify(answer) if len(sent) == 1 else Unsent(ConnectionBrokenError(str(answer)))


def _reply(problem: str) -> str:
    """Return the answer to a command in a script as it is without one."""
    return f"NOPERM {problem}" if problem.startswith(NOT_PERMITTED) else problem
