"""The rows of one hand-over that go to one partition: a record batch, its answer, the next batch."""

from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from typing import Any, Protocol

from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.structs import TopicPartition

from faststream_outbox._values.draft import CONTENT_TYPE
from faststream_outbox._values.outcome import ACCEPTED, Accepted, Poison, Reason, Refused, Unsent, Verdict
from faststream_outbox._values.row import OutboxRow
from faststream_outbox.forwarders.kafka.settings import KafkaSettings
from faststream_outbox.forwarders.kafka.verdicts import classify, is_of_a_topic

MAGIC = 2
"""The record batch format that has headers."""


class Producing(Protocol):
    """What sending needs of a client."""

    async def produce(self, topic: str, partition: int, batch: bytes) -> None:
        """Send a record batch; raise unless Kafka has it."""


class PartitionSending:
    """One batch in flight, and nothing behind it until it is acknowledged: so the order of each key is kept.

    Args:
        client: Sends batches.
        settings: How records are made.
        place: Where they go.
        verdicts: Takes a verdict for each row, under the row's id, as soon as it is known.
    """

    def __init__(
        self,
        client: Producing,
        settings: KafkaSettings,
        place: TopicPartition,
        verdicts: MutableMapping[int, Verdict],
    ) -> None:
        self._client = client
        self._settings = settings
        self._place = place
        self._verdicts = verdicts
        self._held_keys: set[str] = set()

    async def send(self, rows: Sequence[OutboxRow]) -> None:
        """Send rows until all have a verdict; what stands behind an outage stays unsent."""
        runs = [list(rows)]
        while runs:
            run = runs.pop()
            members, batch = self._pack(run)
            if run:
                runs.append(run)
            if not members:
                continue
            verdict = await self._produce(batch)
            if isinstance(verdict, Unsent):
                self._note(members, verdict)
                self._note([row for run in runs for row in run], Unsent())
                return
            if isinstance(verdict, Refused) and is_of_a_topic(verdict.exception):
                refuse([*members, *(row for run in runs for row in run)], verdict, self._verdicts)
                return
            if isinstance(verdict, Accepted) or len(members) == 1:
                self._note(members, verdict)
            else:
                # Kafka refuses a batch for any of its records: halving finds the guilty ones.
                middle = len(members) // 2
                runs += [members[middle:], members[:middle]]

    async def _produce(self, batch: bytes) -> Verdict:
        try:
            await self._client.produce(*self._place, batch)
        except Exception as error:  # noqa: BLE001 - each becomes a verdict
            return classify(error, elsewhere=self._place.topic != self._settings.topic)
        return ACCEPTED

    def _note(self, rows: Sequence[OutboxRow], verdict: Verdict) -> None:
        self._verdicts.update(dict.fromkeys([row.id for row in rows], verdict))
        if isinstance(verdict, Refused):
            self._held_keys.update(row.key for row in rows if row.key is not None)

    def _pack(self, run: list[OutboxRow]) -> tuple[list[OutboxRow], bytes]:
        """Take rows from the front of a run into a record batch, until it is full."""
        builder = self._new_builder()
        members: list[OutboxRow] = []
        taken = 0
        for row in run:
            if row.key is not None and row.key in self._held_keys:
                self._note([row], Unsent())
            else:
                try:
                    # The first record of a batch is taken whatever its size.
                    if not self._append(builder, len(members), row):
                        break
                except (AttributeError, TypeError, ValueError) as error:
                    # Something in it is no text. aiokafka finds that before it writes the first byte of the record.
                    self._note([row], _not_text(row, error))
                else:
                    if builder.size() > self._settings.max_record_bytes:
                        self._note([row], _over_limit(builder.size(), self._settings))
                        builder = self._new_builder()
                    else:
                        members.append(row)
            taken += 1
        del run[:taken]
        return members, builder.build() if members else b""

    def _new_builder(self) -> Any:
        return DefaultRecordBatchBuilder(
            magic=MAGIC,
            compression_type=self._settings.compression,
            is_transactional=0,
            producer_id=-1,
            producer_epoch=-1,
            base_sequence=0,
            batch_size=self._settings.batch_bytes,
        )

    def _append(self, builder: Any, offset: int, row: OutboxRow) -> bool:
        settings = self._settings
        of_row = settings.headers_of(row)
        headers = [(name, value.encode()) for name, value in of_row.items()]
        if settings.headers:
            headers[:0] = [(name, value) for name, value in settings.headers.items() if name not in of_row]
        key = settings.key if row.key is None else row.key.encode()
        value = None if settings.tombstones and key is not None and _has_no_body(row) else row.payload
        return builder.append(offset, None, key, value, headers) is not None


def refuse(rows: Iterable[OutboxRow], refused: Refused, verdicts: MutableMapping[int, Verdict]) -> None:
    """Note that a topic takes none of its rows, in their order; of each key, the later ones wait behind the first."""
    held_keys: set[str] = set()
    for row in rows:
        verdicts[row.id] = Unsent() if row.key in held_keys else refused
        if row.key is not None:
            held_keys.add(row.key)


def _has_no_body(row: OutboxRow) -> bool:
    """Tell whether a row was published with the body None: an empty text would have a content type."""
    return not row.payload and not row.headers.get(CONTENT_TYPE)


def _not_text(row: OutboxRow, error: BaseException) -> Poison:
    headers: Any = row.headers
    named = headers.items() if isinstance(headers, Mapping) else [("all of them", headers)]
    others = [f"{name!r} is {value!r}" for name, value in named if {type(name), type(value)} != {str}]
    problem = TypeError(f"headers must be a mapping of text to text: {', '.join(others) or error}")
    problem.__cause__ = error
    return Poison(Reason.INVALID, problem)


def _over_limit(size: int, settings: KafkaSettings) -> Poison:
    problem = f"the record has {size} bytes, KafkaBroker(max_request_size=...) allows {settings.max_record_bytes}"
    return Poison(Reason.TOO_LARGE, ValueError(problem))
