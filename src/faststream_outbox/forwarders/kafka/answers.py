"""What an answer of Kafka means for a row: the table of failure classes."""

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

from faststream_outbox._values.outcome import Poison, Reason, Refused, Unsent, Verdict

_Kind: TypeAlias = Callable[[BaseException], Verdict]

_too_large: _Kind = partial(Poison, Reason.TOO_LARGE)
_invalid: _Kind = partial(Poison, Reason.INVALID)
_outage: _Kind = Unsent

ANSWERS: dict[int, _Kind] = {
    # Poison: the same record will never be taken.
    10: _too_large,  # MESSAGE_TOO_LARGE
    18: _too_large,  # RECORD_LIST_TOO_LARGE
    87: _invalid,  # INVALID_RECORD: for example no key, for a compacted topic
    # Outage: the cluster, or this topic, takes no record at all for now.
    3: _outage,  # UNKNOWN_TOPIC_OR_PARTITION
    5: _outage,  # LEADER_NOT_AVAILABLE
    6: _outage,  # NOT_LEADER_OR_FOLLOWER
    7: _outage,  # REQUEST_TIMED_OUT
    8: _outage,  # BROKER_NOT_AVAILABLE
    9: _outage,  # REPLICA_NOT_AVAILABLE
    13: _outage,  # NETWORK_EXCEPTION
    17: _outage,  # INVALID_TOPIC_EXCEPTION
    19: _outage,  # NOT_ENOUGH_REPLICAS
    20: _outage,  # NOT_ENOUGH_REPLICAS_AFTER_APPEND
    21: _outage,  # INVALID_REQUIRED_ACKS
    29: _outage,  # TOPIC_AUTHORIZATION_FAILED
    31: _outage,  # CLUSTER_AUTHORIZATION_FAILED
    32: _outage,  # INVALID_TIMESTAMP: a clock is wrong, by which records are stamped when they are sent
    33: _outage,  # UNSUPPORTED_SASL_MECHANISM
    34: _outage,  # ILLEGAL_SASL_STATE
    35: _outage,  # UNSUPPORTED_VERSION
    41: _outage,  # NOT_CONTROLLER
    43: _outage,  # UNSUPPORTED_FOR_MESSAGE_FORMAT: the topic keeps a format without headers
    54: _outage,  # SECURITY_DISABLED
    56: _outage,  # KAFKA_STORAGE_ERROR
    58: _outage,  # SASL_AUTHENTICATION_FAILED
    72: _outage,  # LISTENER_NOT_FOUND
    74: _outage,  # FENCED_LEADER_EPOCH
    75: _outage,  # UNKNOWN_LEADER_EPOCH
    76: _outage,  # UNSUPPORTED_COMPRESSION_TYPE
    89: _outage,  # THROTTLING_QUOTA_EXCEEDED
    100: _outage,  # UNKNOWN_TOPIC_ID
    103: _outage,  # INCONSISTENT_TOPIC_ID
}
"""Error codes and names: Kafka protocol guide, "Error Codes".

Each other code (-1 UNKNOWN_SERVER_ERROR, 2 CORRUPT_MESSAGE, ...) refuses the record. That counts
as an attempt and is tried again, so that an unforeseen one neither stalls the queue for ever nor kills a row at once.
"""

OF_A_TOPIC = frozenset({
    3,  # UNKNOWN_TOPIC_OR_PARTITION
    17,  # INVALID_TOPIC_EXCEPTION
    29,  # TOPIC_AUTHORIZATION_FAILED
})  # fmt: skip
"""Outages of one topic. Where a row has named it, only such rows are met, and they are refused."""


OF_A_PARTITION = frozenset({
    5,  # LEADER_NOT_AVAILABLE
    6,  # NOT_LEADER_OR_FOLLOWER
    7,  # REQUEST_TIMED_OUT: not all replicas have answered their leader
    9,  # REPLICA_NOT_AVAILABLE
    19,  # NOT_ENOUGH_REPLICAS
    20,  # NOT_ENOUGH_REPLICAS_AFTER_APPEND
    56,  # KAFKA_STORAGE_ERROR: the disk of its leader
    74,  # FENCED_LEADER_EPOCH
    75,  # UNKNOWN_LEADER_EPOCH
})  # fmt: skip
"""Outages of one partition, while others of the topic may take records."""


def verdict_on(code: int, error: BaseException) -> Verdict:
    """Return the verdict on a row for which Kafka has answered with an error code."""
    return ANSWERS.get(code, Refused)(error)
