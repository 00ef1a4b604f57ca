from collections import Counter

from aiokafka.partitioner import DefaultPartitioner

from faststream_outbox._values.outcome import Refused, Verdict
from faststream_outbox.forwarders.kafka.partitioning import PartitionChooser, SteadyPartitionChooser

from .rows import row, settings

ALL = [0, 1, 2, 3, 4, 5]


def test_a_key_goes_where_every_other_producer_sends_it_also_while_partitions_have_no_leader() -> None:
    chooser = PartitionChooser(settings())
    rows = [row(number, key=f"key-{number % 9}") for number in range(90)]
    shares = chooser.spread("topic", rows, ALL, [2, 3], {})
    for partition, share in shares.items():
        assert [each.id for each in share] == sorted(each.id for each in share)
        for each in share:
            assert each.key is not None
            assert partition == DefaultPartitioner()(each.key.encode(), ALL, ALL)
    assert sum(map(len, shares.values())) == 90


def test_rows_without_a_key_are_spread_evenly_in_runs_over_partitions_that_have_a_leader() -> None:
    shares = PartitionChooser(settings()).spread("topic", [row(number) for number in range(100)], ALL, [1, 2, 4, 5], {})
    assert {partition: len(share) for partition, share in shares.items()} == {1: 25, 2: 25, 4: 25, 5: 25}
    for share in shares.values():
        first = share[0].id
        assert [each.id for each in share] == list(range(first, first + 25))


def test_single_rows_take_turns() -> None:
    chooser = PartitionChooser(settings())
    turns = [next(iter(chooser.spread("topic", [row(number)], ALL, ALL, {}))) for number in range(12)]
    assert Counter(turns) == dict.fromkeys(ALL, 2)


def test_without_any_leader_the_rows_still_have_a_place() -> None:
    assert sum(map(len, PartitionChooser(settings()).spread("topic", [row(0), row(1)], ALL, [], {}).values())) == 2


def test_the_publishers_key_and_partition() -> None:
    rows = [row(0), row(1, key="own")]
    assert PartitionChooser(settings(partition=4)).spread("topic", rows, ALL, ALL, {}) == {4: rows}
    elsewhere = PartitionChooser(settings(partition=4)).spread("elsewhere", rows[1:], ALL, ALL, {})
    assert list(elsewhere) == [DefaultPartitioner()(b"own", ALL, ALL)], "the partition is one of the publisher's topic"
    shares = PartitionChooser(settings(key=b"default")).spread(
        "topic", [row(number) for number in range(9)], ALL, ALL, {}
    )
    assert list(shares) == [DefaultPartitioner()(b"default", ALL, ALL)]


def test_a_partitioner_that_fails_fails_all_rows_of_that_key() -> None:
    fails = {b"bad"}

    def partitioner(key: bytes, partitions: list[int], available: list[int]) -> int:
        if key in fails:
            fails.clear()
            raise ValueError("cannot place it")
        return 5

    verdicts: dict[int, Verdict] = {}
    rows = [row(0, key="good"), row(1, key="bad"), row(2, key="bad"), row(3, key="good")]
    shares = PartitionChooser(settings(partitioner=partitioner)).spread("topic", rows, ALL, ALL, verdicts)
    assert shares == {5: [rows[0], rows[3]]}
    assert set(verdicts) == {1, 2}
    assert all(isinstance(verdict, Refused) for verdict in verdicts.values())


def test_where_each_row_keeps_to_a_partition_its_id_decides() -> None:
    rows = [row(number) for number in range(600)]
    shares = SteadyPartitionChooser(settings()).spread("topic", rows, ALL, [1, 2], {})
    assert sorted(shares) == ALL, "also one without a leader: another process may have sent to it"
    again = SteadyPartitionChooser(settings())
    again.spread("topic", rows[:1], ALL, ALL, {})
    assert again.spread("topic", rows[100:], ALL, ALL, {}) == {
        partition: [one for one in share if one.id >= 100] for partition, share in shares.items()
    }
